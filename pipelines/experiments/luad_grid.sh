#!/usr/bin/env bash
# All rows of the table for pairs of a fold and a seed; hours on two cores. Run again to go on after a stop, or from
# several processes with different pairs.
#
#   SRC=tissue INIT=lite0.safetensors ./luad_grid.sh 0,0 1,1 2,2
#   python luad_table.py luad
set -uo pipefail

ROWS=${ROWS:-"mlps-cam full mlps craanet craanet-cam mlps-pda mlps-layers craanet-cra craanet-aa craanet-energy mlps-maps"}
here=$(dirname "$0")
mkdir -p "${OUT:-luad}"
failed=0
for pair in "$@"; do
  for row in $ROWS; do
    started=$SECONDS
    if "$here/luad_cell.sh" "$row" "${pair%,*}" "${pair#*,}"; then
      echo "$row, fold and seed $pair: $((SECONDS - started)) s"
    else
      echo "$row, fold and seed $pair: failed with exit code $?" >&2
      failed=1
    fi
  done
done
exit "$failed"
