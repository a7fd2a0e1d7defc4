#!/usr/bin/env bash
# Everything that is to be known of one CUDA or ROCm device, in at most eight minutes; benchmarks/README.md says what.
#
#     benchmarks/accelerator.sh [--small] [--device cpu] [--items NAME ...] [--limit SECONDS] [--out FOLDER]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" benchmarks/accelerator.py "$@"
