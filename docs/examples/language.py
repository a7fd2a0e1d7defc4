"""Text: the committed model of bytes writes on behind a beginning.

A second on a laptop: python docs/examples/language.py
"""

import sciml

model = sciml.load("models/language")
print(model.write("Call me Ishmael. ", 200))
