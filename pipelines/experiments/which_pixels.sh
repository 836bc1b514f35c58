#!/usr/bin/env bash
# What choosing patches, synthetic pairs and pseudo-labels are worth, for one seed: chooses 6 and 12 patches by chance and
# by consistency, makes synthetic ones of each, trains from the chosen patches alone, with synthetic ones (the teacher),
# and with pseudo-labels (the student), and from all labels; then scores all on images kept for that. Seeds choose
# patches, sample synthetic ones and train anew; the GAN of a patch is the same for all of them.
#
#   SRC=nuclei_monuseg/labelled MORE=nuclei_monuseg/unlabelled INIT=lite0.safetensors ./which_pixels.sh monuseg 0
#   SRC=nuclei_dsb2018 INIT=lite0.safetensors ./which_pixels.sh dsb2018 0
#
# SRC holds images/ and labels/ of the same names: patches are chosen from those of them that are not kept to test by,
# and the labelled percentage is a part of the pixels of these. From MORE, images without labels, none are chosen; they
# are only learnt from as unlabelled ones. What is done is not done again, and what was stopped goes on.
# which_pixels/train.toml has the settings of the trainings. They are those of a U-Net; Mask R-CNN has others, such as
#
#   TRAIN="--arch maskrcnn --encoder resnet50 --init coco.pth --set options.net.trained_stages=0 --lr 0.005 --batch-size 6"
#
# with torchvision's weights of COCO, more STEPS, patches and crops (crop_px in train.toml) of 256 px, and a GPU.
set -euo pipefail

NAME=$1 SEED=$2

# --- edit these ---------------------------------------------------------------
: "${SRC:?folder with images/ and labels/}"
OUT=${OUT:-which_pixels_out}
ENCODER=${ENCODER:-tf_efficientnet_lite0}   # what patches are compared by
INIT=${INIT:-none}                          # a file of weights of EfficientNet-Lite0; see lite0_weights.py
COUNTS=${COUNTS:-"6 12"}                    # patches to annotate
STRATEGIES=${STRATEGIES:-"random cps"}
GAN=${GAN:-"--preset cpu"}                  # of the synthetic patches
STEPS=${STEPS:-300}                         # of each training
TRAIN=${TRAIN:-}                            # further options of each training
# Of the images with labels that a network sees, three of four are annotated, not a quarter or a third as is usual. In so
# few steps this was better on images of the pool in mixed stains, and made little difference in H&E. Empty: as usual.
LOOP=${LOOP-"--set options.teacher_real=0.75 --set options.student_shares=[0.45,0.15,0.4]"}
# ------------------------------------------------------------------------------

here=$(dirname "$0")
data=$OUT/$NAME
run=$data/seed$SEED
mkdir -p "$run"

source=$SRC more=${MORE:-}
case $NAME in
  monuseg) test=4 scale=0.5 cut=(--patch-size 125) source=$data/half more=${MORE:+$data/half-more} ;;
  dsb2018) test=15 scale=unknown cut=(--patch-size 128) ;;
  *) echo "there are no settings for $NAME" >&2 && exit 2 ;;
esac

select_patches() {
  wsiseg select "$data/pool.zarr" -k "$2" --strategy "$1" --seed "$SEED" -o "$run/$1-$2/selection" --encoder "$ENCODER" \
    --init "$INIT" --features "$data/features.zarr"
}

# Stores and features are those of all seeds; the images to test by are the same for all.
(
  flock 9
  if [ "$source" != "$SRC" ]; then
    python "$here/halved.py" "$SRC" -o "$source"
    [ -z "$more" ] || python "$here/halved.py" "$MORE" -o "$more"
  fi
  [ -f "$data/split.csv" ] || python "$here/held_out.py" "$source/images" --test "$test" -o "$data/split.csv"
  wsiseg ingest "$source" -o "$data/pool.zarr" --mpp "$scale" "${cut[@]}" --labels-as instances --split "$data/split.csv"
  [ -z "$more" ] || wsiseg ingest "$more" -o "$data/free.zarr" --mpp "$scale" "${cut[@]}" --split unlabelled
  mkdir -p "$data/test/images" "$data/test/labels"
  awk -F, '$2 == "test" { print $1 }' "$data/split.csv" | while read -r image; do
    cp -u "$source/images/$image".* "$data/test/images" && cp -u "$source/labels/$image".* "$data/test/labels"
  done
  for count in $COUNTS; do for strategy in $STRATEGIES; do select_patches "$strategy" "$count"; done; done
) 9> "$data/lock"
stores=("$data/pool.zarr")
[ -z "$more" ] || stores+=("$data/free.zarr")

# Runs a command. Exit code 3 tells that some could not be done, and the others were; any other is that of this script.
tolerating() { "$@" || { local code=$?; ((code == 3)) || exit "$code"; }; }

# One GAN for each patch that a selection has, for all seeds; what is learnt from one selection is sampled from its own.
awk 'FNR > 1 || NR == 1' "$run"/*/selection/selection.csv > "$run/chosen.csv"
read -ra gan <<< "$GAN"
(
  flock 9
  # Patches without a whole nucleus have none. How densely new nuclei lie would else be told by comparison with the other
  # patches that are fitted together, and what is learnt from a few must not depend on the labels of more.
  tolerating wsiseg synth fit "$data/pool.zarr" --selection "$run/chosen.csv" -o "$data/gans" \
    --set layout.density=normal ${gan[@]+"${gan[@]}"}
) 9> "$data/lock"

read -ra training <<< "$TRAIN"
read -ra loop <<< "$LOOP"
learn() {
  # Of an option that is given twice, the last one counts.
  wsiseg train --method "$1" "${@:3}" -o "$2" --config "$here/which_pixels/train.toml" --init "$INIT" \
    --seed "$SEED" --steps "$STEPS" ${training[@]+"${training[@]}"}
}

known=()
[ "$scale" = unknown ] || known=(--slide-mpp "$scale")

# judge MODEL NAME: scores a model on the test images, unless it was not trained since.
judge() {
  [ ! -s "$run/$2.json" ] || [ -n "$(find "$1" -name '*.safetensors' -newer "$run/$2.json")" ] || return 0
  wsiseg predict "$data"/test/images/* --model "$1" -o "$run/predictions/$2" --tissue none --label-png --overwrite \
    ${known[@]+"${known[@]}"}
  wsiseg evaluate "$run/predictions/$2" "$data/test/labels" --task instance -o "$run/$2.json"
}

learn supervised "$run/full" "$data/pool.zarr"
judge "$run/full" full
for count in $COUNTS; do
  for strategy in $STRATEGIES; do
    cell=$run/$strategy-$count selection=$run/$strategy-$count/selection/selection.csv
    # Of a GAN that did not come to its end there are none.
    tolerating wsiseg synth sample "$data/gans" --selection "$selection" -n 50 --seed "$SEED" -o "$cell/synthetic.zarr"
    learn supervised "$cell/real" "$data/pool.zarr" --labelled "$selection"
    learn label-efficient "$cell/loop" "${stores[@]}" "$cell/synthetic.zarr" --labelled "$selection" \
      ${loop[@]+"${loop[@]}"}
    judge "$cell/real" "$strategy-$count-real"
    judge "$cell/loop/teacher" "$strategy-$count-synthetic"
    judge "$cell/loop" "$strategy-$count-pseudo"
  done
done
