#!/usr/bin/env bash
# One slot on a machine with a GPU: benchmarks/gpu_session.sh MINUTES [PART...]
#
# Parts, in this order unless named otherwise: tests, speed, paper. There is also teachers: the eight runs of preset
# teachers, at DataLens' and G-PATE's own settings. Each slot goes on where the last one ended. Exit code 0: all is done; 75: call it
# again, here or elsewhere; 1: something failed, and its words are above.
#
# From the environment: OUT, the one folder of all that a slot leaves, to be carried to the next machine (gpu_session);
# DATA, with a folder per prepared data set (data); PYTHON, that has torch (python).
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONUNBUFFERED=1
OUT=${OUT:-gpu_session} DATA=${DATA:-data} PYTHON=${PYTHON:-python}
AGAIN=75
# Seconds before the slot's end in which a last checkpoint is stored, and below which nothing more is begun.
RESERVE=45 LEAST=60

fail() { echo "error: $1" >&2; exit 2; }
left() { echo $((END - $(date +%s))); }
again() { echo "slot over: $1 goes on in the next one" >&2; exit $AGAIN; }

[[ ${1:-} =~ ^[1-9][0-9]{0,3}$ && $1 -ge 2 ]] || fail "benchmarks/gpu_session.sh takes a slot's whole minutes, 2 to 9999, got '${1:-}'"
END=$(($(date +%s) + 60 * $1 - RESERVE))
shift
[ $# -gt 0 ] || set -- tests speed paper
for part; do
  case $part in tests | speed | paper | teachers) ;; *) fail "unknown part '$part'; valid: tests, speed, paper, teachers" ;; esac
done
"$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2> /dev/null || fail "$PYTHON has no torch that sees a GPU"
mkdir -p "$OUT" || fail "OUT $OUT cannot be made"

# once NAME SECONDS COMMAND...: unless it was done in an earlier slot; a slot that has not SECONDS left ends before.
once() {
  local name=$1 needs=$2 status
  shift 2
  [ ! -e "$OUT/$name.done" ] || return 0
  [ "$(left)" -ge "$needs" ] || again "$name"
  timeout "$(left)" "$@" 2>&1 | tee "$OUT/$name.txt"
  status=${PIPESTATUS[0]}
  [ "$status" -ne 124 ] || again "$name"
  [ "$status" -eq 0 ] || { echo "error: $name failed with exit code $status, see $OUT/$name.txt" >&2; exit 1; }
  touch "$OUT/$name.done"
}

# Every run of a part, each in the time that is left.
runs() {
  local part=$1 folder dataset arguments status minutes
  # Made once, on any machine that can read presets.
  [ -s "$OUT/$part.rows" ] || "$PYTHON" -m benchmarks.gpu_rows "$part" > "$OUT/$part.rows" || { rm -f "$OUT/$part.rows"; exit 1; }
  while IFS=$'\t' read -r folder dataset arguments <&3; do
    [ ! -e "$OUT/$folder/session.done" ] || continue
    [ "$(left)" -ge $LEAST ] || again "$folder"
    minutes=$(awk "BEGIN {print $(left) / 60}")
    echo "$folder: $minutes min left" >&2
    eval "set -- $arguments"
    "$PYTHON" -m methods run "$@" --data "$DATA/$dataset" --out "$OUT/$folder" --minutes "$minutes" --device cuda
    status=$?
    [ $status -ne $AGAIN ] || again "$folder"
    [ $status -eq 0 ] || { echo "error: $folder failed with exit code $status" >&2; exit 1; }
    touch "$OUT/$folder/session.done"
  done 3< "$OUT/$part.rows"
}

for part; do
  case $part in
    tests) once tests 120 "$PYTHON" -m pytest -q -m gpu tests/device ;;
    speed) once speed 300 "$PYTHON" -m benchmarks --only throughput,roofline --repeats 3 --device cuda --out "$OUT/speed" ;;
    *) runs "$part" ;;
  esac
done
echo "all done: $*" >&2
