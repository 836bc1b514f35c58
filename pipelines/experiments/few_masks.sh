#!/usr/bin/env bash
# What methods for few masks gain on one set of images: makes its store, and trains and scores all that its settings ask
# for. Hours on two cores; run it again to go on after a stop, or start it twice with NUM_SHARDS=2 and SHARD_INDEX=0, 1.
#
#   SRC=glands_glas INIT=lite0.safetensors ./few_masks.sh glands
#   SRC=nuclei_monuseg/labelled MORE=nuclei_monuseg/unlabelled INIT=lite0.safetensors ./few_masks.sh nuclei
#   SRC=volumes_hippocampus ./few_masks.sh hippocampus
#
# SRC holds images/ and labels/ of the same names, MORE images without labels. few_masks/NAME.toml has the settings, and
# few_masks/images.csv the images of what was measured. What follows NAME goes to `wsiseg budget`, such as
#
#   OUT=weight_5 SRC=glands_glas INIT=lite0.safetensors ./few_masks.sh glands --methods mean-teacher --fractions 0.1 \
#     --set each.mean-teacher.options.consistency=5 --set each.mean-teacher.options.ramp=0.3
set -euo pipefail

NAME=$1

# --- edit these ---------------------------------------------------------------
: "${SRC:?folder with images/ and labels/}"
OUT=${OUT:-few_masks_out}
SEED=${SEED:-0}                         # decides which images are kept to test by
INIT=${INIT:-none}                      # a file of weights of EfficientNet-Lite0; see lite0_weights.py
# ------------------------------------------------------------------------------

here=$(dirname "$0")
stores=("$OUT/$NAME.zarr")
mkdir -p "$OUT"

begin=()
for method in supervised mean-teacher ugmcl-alone ugmcl; do begin+=(--set "each.$method.options.init=$INIT"); done
case $NAME in
  glands) test=20 how=(--mpp 0.62 --labels-as instances) ;;
  nuclei) test=7 how=(--mpp 0.25 --labels-as instances) ;;
  hippocampus) test=20 how=(--layout volumes) begin=() ;;
  *) echo "there are no settings for $NAME" >&2 && exit 2 ;;
esac

(
  flock 9
  [ -f "$OUT/$NAME.csv" ] || python "$here/held_out.py" "$SRC/images" --test "$test" --seed "$SEED" -o "$OUT/$NAME.csv"
  wsiseg ingest "$SRC" -o "$OUT/$NAME.zarr" "${how[@]}" --split "$OUT/$NAME.csv"
  if [ -n "${MORE:-}" ]; then
    wsiseg ingest "$MORE" -o "$OUT/$NAME-more.zarr" "${how[@]}" --split unlabelled
  fi
) 9> "$OUT/$NAME.lock"
[ -z "${MORE:-}" ] || stores+=("$OUT/$NAME-more.zarr")

shards=()
[ -z "${NUM_SHARDS:-}" ] || shards=(--num-shards "$NUM_SHARDS" --shard-index "${SHARD_INDEX:?which job this is, from 0}")
exec wsiseg budget "${stores[@]}" -o "$OUT/$NAME" --config "$here/few_masks/$NAME.toml" \
  ${begin[@]+"${begin[@]}"} ${shards[@]+"${shards[@]}"} "${@:2}"
