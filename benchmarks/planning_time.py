"""Times plans of models, experiments and clusters of the repository: CPU seconds of a process each, imports included.

    python benchmarks/planning_time.py [WORD ...]

Words choose those plans in whose arguments they all stand. Of experiments whose data are prepared or simulated first,
the first plan pays for that; the table's are those of a second.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLANS = [
    "domain=climate",
    "domain=climate model=vit_115m cluster=h100 devices=8",
    "domain=climate model=vit_1b cluster=perlmutter devices=64 trainer.global_batch_size=256",
    "domain=climate model=vit_5b cluster=frontier devices=512 trainer.global_batch_size=512",
    "domain=climate model=vit_10b cluster=aurora devices=768 trainer.global_batch_size=768",
    "domain=climate model=unet_tiny cluster=a100_80_dgx",
    "domain=climate model=climax_106m cluster=a100_80_dgx",
    "domain=materials",
    "domain=materials model=gnn_large cluster=h100 devices=8",
    "domain=materials model=gnn_1b cluster=h100 devices=64 trainer.global_batch_size=256",
    "domain=fluids",
    "domain=fluids model=amr_small cluster=lumi devices=64 trainer.global_batch_size=256",
    "domain=fluids model=fno_flow_tiny cluster=h200",
    "domain=language",
    "domain=language model=gpt_22b cluster=mi300x devices=64 trainer.global_batch_size=256",
    "domain=language model=gpt_175b cluster=frontier devices=1024 trainer.global_batch_size=4096",
    "domain=language model=gpt_1t cluster=frontier devices=3072 trainer.global_batch_size=1536",
    "experiment=fluids_refine",
    "experiment=frontier_175b devices=1024",
    "experiment=frontier_1t devices=3072",
]


def cpu_seconds(plan: str, folder: str) -> float:
    """Returns the CPU seconds of a plan's process, which must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "scripts/plan.py", *plan.split(), "pictures=false", f"out={folder}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=600)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(words: list[str]) -> None:
    """Prints a table of the plans that are chosen."""
    chosen = [plan for plan in PLANS if all(word in plan for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        if any("language" not in plan for plan in chosen):
            prepared = [next((p for p in chosen if p.startswith(f"domain={d}")), None) for d in ("materials", "fluids")]
            for plan in filter(None, prepared):
                cpu_seconds(plan, folder)
        print("CPU s  plan")
        for plan in chosen:
            print(f"{cpu_seconds(plan, folder):5.1f}  {plan}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
