#!/usr/bin/env bash
# Several ranks on this machine.
#
#   launch/torchrun_local.sh [--dry-run] RANKS VERB key=value ...
#   launch/torchrun_local.sh 2 reconstruct micrograph.path=sem.tif volume.size=256 run.dir=out
#
# One rank a GPU; without GPUs the ranks share the cores among them (runtime.threads=null).
set -euo pipefail

dry_run=false
if [[ ${1:-} == --dry-run ]]; then
    dry_run=true
    shift
fi
if [[ $# -lt 2 || ! $1 =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: ${0##*/} [--dry-run] RANKS VERB key=value ..." >&2
    exit 2
fi
ranks=$1
shift

command=(torchrun --standalone --nproc-per-node "$ranks" -m mcrdist "$@")
if $dry_run; then
    printf '%q ' "${command[@]}"
    echo
else
    exec "${command[@]}"
fi
