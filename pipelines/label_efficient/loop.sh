#!/usr/bin/env bash
# From slides to a model of their nuclei, with a few patches annotated: cuts the slides, says which patches are worth it,
# waits for their annotation in QuPath, makes synthetic patches of them, trains on these, on the annotated ones and on
# pseudo-labels of the others, predicts the slides, and says what to annotate next.
#
#   ./loop.sh             stops where it is your turn, and says what to do; run it again to go on, also after a kill
#   ROUNDS=2 ./loop.sh    goes on with the patches of which the model of the first round was least sure
set -euo pipefail

# --- edit these ---------------------------------------------------------------
SLIDES=${SLIDES:-slides}                # a slide, or a folder of slides
OUT=${OUT:-loop}                        # gets everything
MPP=${MPP:-0.25}                        # µm per pixel: nuclei should be 15 to 50 pixels wide
PATCHES=${PATCHES:-6}                   # of 256 × 256 pixels, to annotate in each round
PRESET=${PRESET:-cpu}                   # of synthetic patches: cpu (half an hour for each), gpu, paper, or smoke to try
# ------------------------------------------------------------------------------

ROUNDS=${ROUNDS:-1}
# What else the commands shall be told. Patches are compared by ResNet-50, which --download fetches once; pass
# SELECT="--init FILE" where there is no network, and for instance TRAIN="--steps 2000" to be quicker.
read -ra choose <<< "${SELECT:---download}"
read -ra learn <<< "${TRAIN:-}"

tiles=$OUT/tiles
wsiseg tile "$SLIDES" -o "$tiles" --mpp "$MPP" --patch-size 256

for ((round = 1; round <= ROUNDS; round++)); do
  selection=$OUT/select-$round annotations=$OUT/annotations-$round synthetic=$OUT/synthetic-$round.zarr
  [ ! -e "$OUT/round-$round.done" ] || continue

  # After the first round select is called at the end of the one before.
  [ -e "$selection/selection.json" ] || wsiseg select "$tiles" -k "$PATCHES" -o "$selection" "${choose[@]}"

  mapfile -t slides < <(awk -F, 'NR > 1 && $NF == 1 { print $2 }' "$selection/selection.csv" | sort -u)
  mkdir -p "$annotations"
  missing=()
  for slide in "${slides[@]}"; do
    [ -e "$annotations/$slide.geojson" ] || missing+=("$annotations/$slide.geojson")
  done
  if ((${#missing[@]})); then
    cat >&2 <<TURN

Round $round: now it is your turn. $selection/selection.html shows the patches to annotate.
  1. Open each slide in QuPath, and drag its boxes onto it: $selection/rois.geojson, or the slide's file in rois/.
  2. Outline every nucleus in the boxes, also those that their edges cut. Give all of them the same class or none;
     what is not to be learnt gets the class Ignore*.
  3. File > Export objects as GeoJSON, all objects, boxes included:
$(printf '       %s\n' "${missing[@]}")
Then run this again.
TURN
    exit 4
  fi

  for slide in "${slides[@]}"; do
    wsiseg label "$tiles/$slide.zarr" --from "$annotations/$slide.geojson" --as instances --overwrite
  done

  # 3: patches that cannot be learnt from are named, and the others are done.
  wsiseg synth fit "$tiles" --selection "$selection/selection.csv" --preset "$PRESET" -o "$OUT/gans" || (($? == 3))
  [ -e "$synthetic" ] || wsiseg synth sample "$OUT/gans" -n 50 -o "$synthetic"

  # Of so few patches none is held out; the model is the last one.
  wsiseg train "$tiles" "$synthetic" --method label-efficient --val-fraction 0 -o "$OUT/run-$round" "${learn[@]}"
  wsiseg predict "$SLIDES" --model "$OUT/run-$round" -o "$OUT/predictions-$round"

  next=$OUT/select-$((round + 1))
  [ -e "$next/selection.json" ] || wsiseg select "$tiles" -k "$PATCHES" -o "$next" --strategy uncertainty \
    --prediction "$OUT/predictions-$round"
  touch "$OUT/round-$round.done"
done

cat >&2 <<DONE

Done: polygons for QuPath are in $OUT/predictions-$ROUNDS.
To annotate what this model is least sure of, too: ROUNDS=$((ROUNDS + 1)) $0
DONE
