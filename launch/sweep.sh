#!/usr/bin/env bash
# A run for each value of a setting, as jobs of their own (each goes on by itself when it is preempted), or here.
#
#   launch/sweep.sh [--dry-run] [sbatch options] KEY=V1,V2,... reconstruct key=value ... run.dir=DIR
#   launch/sweep.sh --nodes=2 --time=08:00:00 seed=0,1,2,3 reconstruct micrograph.path=sem.tif volume.size=512 \
#       run.dir=/scratch/ensemble
#   launch/sweep.sh --local 2 seed=0,1,2,3 reconstruct ...      one after the other on this machine, 2 ranks each
#
# The results are in DIR/KEY=VALUE. On one machine, `mcrdist reconstruct KEY=V1,V2,... -m` makes a report of their
# scatter as well.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dry_run=()
ranks=
options=()
# All that stands before "KEY=V1,V2,... reconstruct" is an option, of this script or of sbatch, where some are two words.
while [[ $# -ge 2 && ! ($1 != -* && $1 == ?*=?* && $2 == reconstruct) ]]; do
    case $1 in
        --dry-run) dry_run=(--dry-run) ;;
        --local)
            ranks=$2
            shift
            if [[ ! $ranks =~ ^[1-9][0-9]*$ ]]; then
                echo "--local: expected the number of ranks, found '$ranks'; e.g. --local 2" >&2
                exit 2
            fi
            ;;
        *) options+=("$1") ;;
    esac
    shift
done
if [[ $# -lt 2 ]]; then
    echo "usage: ${0##*/} [--dry-run] [--local RANKS | sbatch options] KEY=V1,V2,... reconstruct key=value ... run.dir=DIR" >&2
    exit 2
fi
key=${1%%=*}
# Commas separate values, but for those between brackets: micrograph.crop=[0,64,0,64] is one.
values=()
value=
depth=0
rest=${1#*=}
while [[ -n $rest ]]; do
    letter=${rest:0:1}
    rest=${rest:1}
    case $letter in
        '[' | '(' | '{') depth=$((depth + 1)) ;;
        ']' | ')' | '}') depth=$((depth - 1)) ;;
    esac
    if [[ $letter == , && $depth -le 0 ]]; then
        values+=("$value")
        value=
    else
        value+=$letter
    fi
done
if [[ -n $value ]]; then
    values+=("$value")
fi
shift
dir=
settings=()
for argument in "$@"; do
    case $argument in
        run.dir=*) dir=${argument#run.dir=} ;;
        *) settings+=("$argument") ;;
    esac
done
if [[ -z $dir ]]; then
    echo "run.dir: expected a directory for the runs, found none; give run.dir=/scratch/ensemble" >&2
    exit 2
fi

for value in "${values[@]}"; do
    run=("${settings[@]}" "$key=$value" "run.dir=$dir/$key=$value")
    if [[ -n $ranks ]]; then
        "$here/torchrun_local.sh" ${dry_run[@]+"${dry_run[@]}"} "$ranks" "${run[@]}"
    elif [[ ${#dry_run[@]} -gt 0 ]]; then
        printf '%q ' sbatch ${options[@]+"${options[@]}"} "$here/slurm.sbatch" "${run[@]}"
        echo
    else
        sbatch ${options[@]+"${options[@]}"} "$here/slurm.sbatch" "${run[@]}"
    fi
done
