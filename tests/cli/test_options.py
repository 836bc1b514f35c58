"""Options of the commands are promises: none goes, comes or changes its name by accident."""

from __future__ import annotations

import typer.main
from typer.core import TyperCommand, TyperGroup

from wsiseg.cli import app

OPTIONS = {
    "info": "--json --reader --slide-mpp --verify slides",
    "doctor": "--json",
    "tile": """--codec --config --dry-run --fail-fast --limit --list --manifest --min-tissue --mpp --num-shards
        --num-workers --output --overlap --overwrite --patch-size --reader --set --shard-index --slide-dir
        --slide-mpp --tissue -o slides""",
    "ingest": """--classes --config --labels --labels-as --layout --mpp --num-workers --output --overlap --overwrite
        --patch-size --set --split --white -o source""",
    "select": """--amp --batch-size --config --count --device --download --encoder --exclude --features --init
        --min-nuclei --min-tissue --no-overlap --num-workers --output --overwrite --prediction --preproc --runners-up
        --seed --set --strategy --time-limit -k -o stores""",
    "label": """--as --classes --config --from --keep --layer --overwrite --qupath-origin --set --undrawn --white
        store""",
    "synth fit": """--config --device --layer --output --overwrite --patch --preset --seed --selection --set
        --time-limit -o stores""",
    "synth sample": """--config --count --device --noise --output --overwrite --seed --selection --set --time-limit -n
        -o gans""",
    "train": """--accumulate --amp --arch --backbone --batch-size --config --crop-px --device --ema --encoder --epochs
        --head --init --labelled --layer --lr --method --mpp --num-workers --output --overwrite --rounds --seed --set
        --stages --steps --time-limit --val-fraction -o stores""",
    "budget": """--arch --batch-size --config --counts --crop-px --device --epochs --fractions --methods --num-shards
        --output --seeds --set --shard-index --steps --time-limit -o stores""",
    "pseudo-label": "--checkpoint --device --export --layer --min-score --overwrite --time-limit --val stores",
    "audit": "--layer --output --truth -o store",
    "models": "--json action model",
    "predict": """--amp --batch-size --blend --compile --config --device --dry-run --fail-fast --format --label-png
        --list --manifest --max-ram --model --mpp --num-shards --num-workers --output --overlap --overwrite --polygons
        --probability --qupath-origin --reader --set --shard-index --simplify --slide-dir --slide-mpp --time-limit
        --tissue --tta -o slides""",
    "evaluate": """--bootstrap --classes --config --csv --ignore-index --json --mpp --num-classes --output --seed --set
        --task --tolerance -o pred truth""",
    "demo": "--loop --output -o",
}


def group() -> TyperGroup:
    command = typer.main.get_command(app.app)
    assert isinstance(command, TyperGroup)
    return command


def commands() -> dict[str, TyperCommand]:
    """Return the commands by name, those of groups by both names."""
    found: dict[str, TyperCommand] = {}
    for name, command in group().commands.items():
        inner = command.commands if isinstance(command, TyperGroup) else {"": command}
        for own, one in inner.items():
            assert isinstance(one, TyperCommand)
            found[f"{name} {own}".strip()] = one
    return found


def test_the_options_are_these() -> None:
    found = {
        name: " ".join(sorted(option for parameter in command.params for option in parameter.opts))
        for name, command in commands().items()
    }

    assert found == {name: " ".join(options.split()) for name, options in OPTIONS.items()}


def test_the_options_before_the_command_are_these() -> None:
    found = sorted(option for parameter in group().params for option in parameter.opts)

    assert found == ["--install-completion", "--progress", "--show-completion", "--verbose", "--version", "-v"]


def test_every_option_has_a_help_text() -> None:
    silent = [
        f"{name} {parameter.name}"
        for name, command in commands().items()
        for parameter in command.params
        if parameter.name != "help" and not getattr(parameter, "help", None)
    ]

    assert silent == []
