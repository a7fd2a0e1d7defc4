"""A whole domain in one file, outside of ``domains``: blobs that drift around a ring."""
