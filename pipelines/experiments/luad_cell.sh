#!/usr/bin/env bash
# One row of the table for one fold and one seed: trains what is missing, predicts the test images, and scores them.
#
#   SRC=tissue INIT=lite0.safetensors ./luad_cell.sh ROW FOLD SEED
#
# SRC holds images/ and masks/; see luad_patches.py. What is done is not done again, and what was stopped goes on.
set -euo pipefail

ROW=$1 FOLD=$2 SEED=$3

# --- edit these ---------------------------------------------------------------
: "${SRC:?folder with images/ and masks/}"
OUT=${OUT:-luad}
BACKBONE=${BACKBONE:-tf_efficientnet_lite0}
INIT=${INIT:-none}                      # a file of weights of the backbone; see lite0_weights.py
CLASSIFY=${CLASSIFY:-"epochs=20 lr=0.0003 momentum=0.9"}   # at 0.001 the classifier dies once attention is switched off
SEGMENT=${SEGMENT:-"epochs=12 lr=0.001"}
BATCH=${BATCH:-8}
AMP=${AMP:-bf16}
# ------------------------------------------------------------------------------

here=$(dirname "$0")
data=$OUT/fold$FOLD
cell=$OUT/fold$FOLD-seed$SEED
run=$cell/$ROW
[ -s "$run.json" ] && exit 0
predict=()
mkdir -p "$cell"

(
  flock 9
  [ -d "$data" ] || python "$here/luad_patches.py" "$SRC" -o "$data" --fold "$FOLD"
) 9> "$OUT/fold$FOLD.lock"
[ -d "$cell/weak.zarr" ] || wsiseg ingest "$data/weak" -o "$cell/weak.zarr" --layout wsss4luad

both=(--seed "$SEED" --batch-size "$BATCH" --amp "$AMP" --num-workers 1)
# Of a method: its classifier, and its segmentation network.
net=(--backbone "$BACKBONE" --init "$INIT" --set options.output_stride=16)
for number in $CLASSIFY; do net+=(--set "options.numbers.classify.$number"); done
for number in $SEGMENT; do net+=(--set "options.numbers.segment.$number"); done

# classify METHOD NAME OPTION…: trains a classifier that several rows share.
classify() {
  local method=$1 name=$2
  shift 2
  wsiseg train --method "$method" "$cell/weak.zarr" -o "$cell/$name" --stages classify "${net[@]}" "${both[@]}" "$@"
}

# segment METHOD CLASSIFIER OPTION…: labels the patches with a classifier, and learns from that.
segment() {
  local method=$1 classifier=$cell/$2
  shift 2
  mkdir -p "$run"
  [ -d "$run/classify" ] || { cp -r "$classifier/classify" "$run/classify.part" && mv "$run/classify.part" "$run/classify"; }
  wsiseg train --method "$method" "$cell/weak.zarr" -o "$run" --stages pseudo-label,segment \
    "${net[@]}" "${both[@]}" "$@"
}

mlps() {
  local pda=$1 weights=$2 gate=$3
  classify mlps "mlps-pda-$pda" --set "options.attention=$pda"
  segment mlps "mlps-pda-$pda" --set "options.attention=$pda" --set "options.numbers.layer_weights=$weights" \
    --set "options.gate=$gate"
}

craanet() {
  local residual=$1 accumulate=$2 energy=$3 contrast=$4
  classify craanet "craanet-$residual" --set "options.residual_weight=$residual"
  segment craanet "craanet-$residual" --set "options.residual_weight=$residual" \
    --set "options.accumulate=$accumulate" --set "options.energy.weight=$energy" --set "options.contrast.weight=$contrast"
}

case $ROW in
  mlps-maps) classify mlps mlps-pda-false --set options.attention=false && run=$cell/mlps-pda-false ;;
  mlps-cam) mlps false '[0,0,1]' false ;;
  mlps-pda) mlps true '[0,0,1]' false ;;
  # The gate has no part in training.
  mlps-layers) run=$cell/mlps && mlps true '[0.2,0.2,0.6]' true && predict+=(--set gate=false) ;;
  mlps) mlps true '[0.2,0.2,0.6]' true ;;
  craanet-cam) craanet 0 false 0 0 ;;
  craanet-cra) craanet 0.3 false 0 0 ;;
  craanet-aa) craanet 0.3 true 0 0 ;;
  craanet-energy) craanet 0.3 true 1 0 ;;
  craanet) craanet 0.3 true 1 0.1 ;;
  full)
    [ -d "$cell/full.zarr" ] || wsiseg ingest "$data/full" -o "$cell/full.zarr" --labels-as classes \
      --classes tumour,stroma,normal --mpp 1 --split "$data/full/split.csv"
    epochs=$(tr ' ' '\n' <<< "$SEGMENT" | sed -n 's/^epochs=//p')
    wsiseg train --method supervised "$cell/full.zarr" -o "$run" --arch deeplabv3+ --encoder "$BACKBONE" --init "$INIT" \
      --crop-px 224 --epochs "$epochs" --set fit.validate_every=13 "${both[@]}"
    ;;
  *) echo "there is no row $ROW" >&2 && exit 2 ;;
esac

wsiseg predict "$data"/test/images/*.png --model "$run" -o "$cell/test/$ROW" --slide-mpp 1 --tissue none --label-png \
  ${predict[@]+"${predict[@]}"}
wsiseg evaluate "$cell/test/$ROW" "$data/test/labels" --task semantic --num-classes 3 --classes tumour,stroma,normal \
  -o "$cell/$ROW.json"
