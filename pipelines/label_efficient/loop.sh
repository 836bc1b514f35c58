#!/usr/bin/env bash
# From slides to a model of their nuclei, with a few patches annotated: cuts the slides, says which patches are worth it,
# waits for their annotation in QuPath, makes synthetic patches of them, trains on these, on the annotated ones and on
# pseudo-labels of the others, predicts the slides, and says what to annotate next.
#
#   ./loop.sh             stops where it is your turn, and says what to do; run it again to go on, also after a kill
#   ROUNDS=2 ./loop.sh    goes on with the patches of which the model of the first round was least sure
#
# Where annotations are changed later, what was learnt from them has to be learnt anew: remove OUT/round-1.done and what
# came after it, such as OUT/select-2, and call TRAIN=--overwrite PREDICT=--overwrite ./loop.sh once.
# Ends with 3 where some slides could not be cut or predicted.
set -euo pipefail

# --- edit these ---------------------------------------------------------------
SLIDES=${SLIDES:-slides}                # a slide, or a folder of slides
OUT=${OUT:-loop}                        # gets everything
MPP=${MPP:-0.25}                        # µm per pixel: nuclei should be 15 to 50 pixels wide
PATCHES=${PATCHES:-6}                   # of 256 × 256 pixels, to annotate in each round
PRESET=${PRESET:-cpu}                   # of synthetic patches: cpu (20 minutes for each), gpu, paper, or smoke to try
# ------------------------------------------------------------------------------

ROUNDS=${ROUNDS:-1}
# What else the commands shall be told. Patches are compared by ResNet-50, which --download fetches once; pass
# SELECT="--init FILE" where there is no network. Others are for instance TILE="--slide-mpp 0.25" with the same PREDICT,
# for slides that do not tell their scale, SYNTH="--set lr=1e-4", and TRAIN="--steps 2000" to be quicker, or
# TRAIN="--val-fraction 0.2" for a figure from patches that are held out, once many are annotated.
read -ra cut <<< "${TILE:-}"
read -ra choose <<< "${SELECT:---download}"
read -ra paint <<< "${SYNTH:-}"
read -ra learn <<< "${TRAIN:-}"
read -ra find <<< "${PREDICT:-}"

case $PRESET in
  paper | gpu | cpu | smoke) ;;
  *) echo "PRESET=$PRESET: there are paper, gpu, cpu and smoke" >&2 && exit 2 ;;
esac

# The bash of macOS, 3.2, takes a list without items for one that is not set, hence ${list[@]+"${list[@]}"}.

# Runs a command, and leaves its exit code in code. 3 tells that some could not be done, and the others were; 4 that there
# was none that could be; any other is that of this script.
tolerating() {
  code=0
  "$@" || code=$?
  ((code == 0 || code == 3 || code == 4)) || exit "$code"
}

# Runs a command. Where it ends with 3, so does this script at last.
ended=0
noting() { "$@" || { local code=$?; ((code == 3)) || exit "$code"; ended=3; }; }

# predict ROUND: goes on where it was stopped, and to slides that could not be read before.
predict() {
  noting wsiseg predict "$SLIDES" --model "$OUT/run-$1" -o "$OUT/predictions-$1" ${find[@]+"${find[@]}"}
}

# finish ROUND NEXT: says what there is after a round, and what may come next.
finish() {
  printf '\nDone: polygons for QuPath are in %s.\n%s\n' "$OUT/predictions-$1" "$2" >&2
  ((ended == 0)) || echo "Some slides could not be cut or predicted, as said above; run this again to try again." >&2
  exit "$ended"
}

# propose ROUND: chooses patches to annotate; after the first round those of which the model before was least sure.
propose() {
  local table=$OUT/select-$1 before=$(($1 - 1)) how=() code earlier
  if [ -e "$table/selection.json" ]; then
    grep -Eq "\"count\": $PATCHES([^0-9]|$)" "$table/selection.json" ||
      cat >&2 <<KEPT
$table is not for PATCHES=$PATCHES, and is kept. To choose anew, rename $OUT/annotations-$1, where there are any, remove
$table/selection.json, and run this again; features are not computed again.
KEPT
    return 0
  fi
  ((before == 0)) || how=(--exclude labels --strategy uncertainty --prediction "$OUT/predictions-$before")
  # Also those that were chosen and that nobody has annotated yet.
  for ((earlier = 1; earlier <= before; earlier++)); do how+=(--exclude "$OUT/select-$earlier/selection.csv"); done
  wsiseg select "$tiles" -k "$PATCHES" -o "$table" ${choose[@]+"${choose[@]}"} ${how[@]+"${how[@]}"} || {
    code=$?
    ((code == 4 && before > 0)) || exit "$code"
    finish "$before" "No $PATCHES patches are left to annotate; to go on with fewer: PATCHES=1 ROUNDS=$1 $0"
  }
}

# chosen TABLE: the slides of the chosen patches, whose names may hold commas, as their stores are called.
chosen() {
  python3 - "$1" "$tiles" << 'READ'
import csv, pathlib, sys
try:
    with open(sys.argv[1], newline="", encoding="utf-8-sig") as file:
        lines = file.read().splitlines()
except UnicodeDecodeError:
    sys.exit(f"{sys.argv[1]} is not in UTF-8. Save it as \"CSV UTF-8\" in the spreadsheet")
# Spreadsheets in many countries write semicolons, and make 1 of a slide that is called 001.
rows = csv.DictReader(lines, delimiter=max(",;\t", key=lines[0].count))
stores = {store.stem for store in pathlib.Path(sys.argv[2]).glob("*.zarr")}
slides, lost = set(), []
for slide in sorted({row["slide"] for row in rows if row["rank"] == "1"}):
    alike = [one for one in stores if one.isdecimal() and slide.isdecimal() and int(one) == int(slide)]
    if slide in stores or len(alike) == 1:
        slides.add(slide if slide in stores else alike[0])
    else:
        lost.append(slide)
if lost:
    sys.exit(f"{sys.argv[1]}: no store in {sys.argv[2]} is called {lost[0]!r}. Write slides as their stores are called")
print(*sorted(slides), sep="\n")
READ
}

tiles=$OUT/tiles
noting wsiseg tile "$SLIDES" -o "$tiles" --mpp "$MPP" --patch-size 256 ${cut[@]+"${cut[@]}"}

selections=()
for ((round = 1; round <= ROUNDS; round++)); do
  selection=$OUT/select-$round annotations=$OUT/annotations-$round synthetic=$OUT/synthetic-$round.zarr
  if [ -e "$OUT/round-$round.done" ]; then
    selections+=(--selection "$selection/selection.csv")
    ((round < ROUNDS)) || predict "$round"
    continue
  fi

  propose "$round"
  names=$(chosen "$selection/selection.csv")
  IFS=$'\n' read -r -d '' -a slides <<< "$names" || true   # it never ends with the character asked for
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
     what is not to be learnt gets the class Ignore*, be it a whole box.
  3. File > Export objects as GeoJSON, all objects, boxes included:
$(printf '       %s\n' "${missing[@]}")
Then run this again.
TURN
    exit 4
  fi

  # Without boxes nothing tells what is background, and QuPath is quick to export only what is selected. Those of
  # rois.geojson name their patches, also where their class was changed to Ignore*.
  for slide in "${slides[@]}"; do
    grep -q -e 'Region[*]' -e '"patch" *:' "$annotations/$slide.geojson" || missing+=("$annotations/$slide.geojson")
  done
  if ((${#missing[@]})); then
    echo "These have no boxes of the class Region*. Export all objects once more, boxes included, and run this again:" >&2
    printf '  %s\n' "${missing[@]}" >&2
    exit 4
  fi

  # Patches of earlier rounds keep their labels, whether or not they were exported again.
  for slide in "${slides[@]}"; do
    wsiseg label "$tiles/$slide.zarr" --from "$annotations/$slide.geojson" --as instances --keep
  done

  # Patches without a whole nucleus have no GAN.
  tolerating wsiseg synth fit "$tiles" --selection "$selection/selection.csv" --preset "$PRESET" -o "$OUT/gans" \
    ${paint[@]+"${paint[@]}"}
  # Of the patches that all rounds have chosen, though not of one that another took the place of; done once, unless GANs
  # are others now, as are those of patches that were annotated anew.
  selections+=(--selection "$selection/selection.csv")
  tolerating wsiseg synth sample "$OUT/gans" ${selections[@]+"${selections[@]}"} -n 50 -o "$synthetic" --overwrite
  painted=()
  ((code == 4)) || painted=("$synthetic")

  # Of so few patches none is held out; the model is the last one.
  wsiseg train "$tiles" ${painted[@]+"${painted[@]}"} --method label-efficient --val-fraction 0 -o "$OUT/run-$round" \
    ${learn[@]+"${learn[@]}"}
  predict "$round"
  touch "$OUT/round-$round.done"
done

propose $((ROUNDS + 1))
finish "$ROUNDS" "To annotate what this model is least sure of, too: ROUNDS=$((ROUNDS + 1)) $0"
