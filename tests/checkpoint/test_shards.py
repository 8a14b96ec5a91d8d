"""Tests of checkpoints in several files."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergekit_wise.checkpoint import open_checkpoint, plan_output, writing_output
from mergekit_wise.errors import CheckpointError

STATE = {f"layer.{i}.weight": torch.full((100,), float(i)) for i in range(10)}


def sharded(tmp_path, save, names=("a", "b")):
    """STATE in two files, and the index of them."""
    parts = {names[0]: dict(list(STATE.items())[:4]), names[1]: dict(list(STATE.items())[4:])}
    for name, part in parts.items():
        save(part, tmp_path / name)
    weight_map = {key: name for name, part in parts.items() for key in part}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return tmp_path / "model.safetensors.index.json"


@pytest.mark.parametrize("save", [save_file, torch.save], ids=["safetensors", "torch.save"])
def test_shards_are_one_checkpoint(save, tmp_path):
    """Shards of both formats are opened by their index and by their folder."""
    for path in (sharded(tmp_path, save), tmp_path):
        checkpoint = open_checkpoint(path)
        assert checkpoint.tensors.keys() == STATE.keys()
        assert "2 shards" in checkpoint.kind
        for name, tensor in STATE.items():
            assert checkpoint.read(name).tobytes() == tensor.numpy().tobytes()


@pytest.mark.parametrize("shard", ["../a", "/etc/passwd", "", ".", "x/y", 5])
def test_an_index_reaches_only_the_files_beside_it(shard, tmp_path):
    """A downloaded index cannot name files outside its folder."""
    (tmp_path / "i.json").write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(CheckpointError, match="not a file next to the index"):
        open_checkpoint(tmp_path / "i.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"weight_map": {"a": "x", "a": "y"}}', "occurs twice"),
        ("{", "not a readable index"),
        ("{}", "weight_map"),
        ('{"weight_map": {}}', "weight_map"),
        ("{" * 99999, "index"),
    ],
)
def test_json_that_is_no_index_is_refused(text, message, tmp_path):
    """JSON files without a valid weight_map are refused."""
    (tmp_path / "i.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path / "i.json")


def test_json_of_a_size_that_no_index_has_is_refused(tmp_path):
    """A file that is too large is refused before it is parsed, which would take many times its size of memory."""
    with (tmp_path / "i.json").open("wb") as file:
        file.write(b'{"weight_map": {')
        file.truncate(1 << 40)
    with pytest.raises(CheckpointError, match="too long to be an index"):
        open_checkpoint(tmp_path / "i.json")


@pytest.mark.parametrize("shard", ["a\0b", "\ud800"])
def test_a_shard_by_a_name_that_no_file_can_have_is_refused(shard, tmp_path):
    """Names that JSON can express and file systems cannot are refused."""
    (tmp_path / "i.json").write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(CheckpointError, match="cannot be opened"):
        open_checkpoint(tmp_path / "i.json")


def test_a_shard_that_is_a_folder_is_refused(tmp_path):
    """An index lists files, so even a folder with weights in it is refused."""
    (tmp_path / "sub").mkdir()
    save_file(STATE, tmp_path / "sub" / "model.safetensors")
    (tmp_path / "i.json").write_text(json.dumps({"weight_map": {"w": "sub"}}))
    with pytest.raises(CheckpointError, match="sub: a folder, but a checkpoint file was expected"):
        open_checkpoint(tmp_path / "i.json")


def test_an_index_that_names_itself_is_refused(tmp_path):
    """An index is not opened as a shard, so it cannot cause endless recursion."""
    (tmp_path / "i.json").write_text(json.dumps({"weight_map": {"w": "i.json"}}))
    with pytest.raises(CheckpointError, match="an index of shards, where"):
        open_checkpoint(tmp_path / "i.json")


def test_a_missing_shard_and_a_missing_tensor_are_named(tmp_path):
    """The error names the file, and the tensor that it should hold."""
    index = sharded(tmp_path, save_file)
    save_file({"other": torch.ones(1)}, tmp_path / "b")
    with pytest.raises(CheckpointError, match=r"layer.4.weight should be in b"):
        open_checkpoint(index)
    (tmp_path / "b").unlink()
    with pytest.raises(CheckpointError, match=r"1 of 2 shards is missing: b\."):
        open_checkpoint(index)


def test_tensors_that_the_index_does_not_list_are_read_with_a_note(tmp_path):
    """An index that is older than its shards loses nothing; a tensor that two files hold is refused."""
    index = sharded(tmp_path, save_file)
    weight_map = json.loads(index.read_text())["weight_map"]
    left_out = {name: weight_map.pop(name) for name in ("layer.3.weight", "layer.9.weight")}
    index.write_text(json.dumps({"weight_map": weight_map}))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.tensors.keys() == STATE.keys()
    (note,) = checkpoint.notes
    assert "2 tensors" in note
    assert all(name in note for name in left_out)
    save_file({**dict(list(STATE.items())[4:]), "layer.3.weight": torch.ones(1)}, tmp_path / "b")
    with pytest.raises(CheckpointError, match=r"layer\.3\.weight is in a and in b"):
        open_checkpoint(index)


def test_every_missing_shard_is_named(tmp_path):
    """A download that lacks several files lists them at once, with and without an index."""
    names = [f"model-0000{number}-of-00004.safetensors" for number in range(1, 5)]
    for name, key in zip(names, STATE, strict=False):
        save_file({key: STATE[key]}, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict(zip(STATE, names, strict=False))}))
    for gone in (names[1], names[3]):
        (tmp_path / gone).unlink()
    for _ in ("with the index", "without it"):
        with pytest.raises(CheckpointError, match=f"2 of 4 shards are missing: {names[1]}, {names[3]}"):
            open_checkpoint(tmp_path)
        index.unlink(missing_ok=True)


def test_shards_without_an_index_are_read_with_a_note(tmp_path):
    """Files that count themselves are one checkpoint; one of them given by itself is read with a note."""
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    save_file(dict(list(STATE.items())[:4]), tmp_path / names[0])
    save_file(dict(list(STATE.items())[4:]), tmp_path / names[1])
    checkpoint = open_checkpoint(tmp_path)
    assert list(checkpoint.tensors) == list(STATE)
    assert any("no index" in note and "2 shards" in note for note in checkpoint.notes)
    alone = open_checkpoint(tmp_path / names[1])
    assert len(alone.tensors) == 6
    assert any("shard 2 of 2" in note for note in alone.notes)


def test_a_folder_without_weights_says_what_it_looked_for(tmp_path):
    """The error lists the usual names."""
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json"):
        open_checkpoint(tmp_path)


def test_shards_that_are_written_can_be_read(tmp_path):
    """No shard exceeds the size asked for, the index lists all, and safetensors and this tool read them."""
    save_file(STATE, tmp_path / "in")
    source = open_checkpoint(tmp_path / "in")
    plan = plan_output(tmp_path / "out.safetensors", [source.info(n) for n in source.tensors], {"format": "pt"}, 1000)
    with writing_output(plan) as out:
        for name in source.tensors:
            out.put(name, 0, source.read(name))
        assert not plan.index.exists()
    assert [path.name for path in plan.files] == [f"out-0000{i}-of-00005.safetensors" for i in range(1, 6)]
    for path in plan.files:
        assert sum(tensor.nbytes for tensor in load_file(path).values()) <= 1000
    again = open_checkpoint(tmp_path / "out.safetensors.index.json")
    assert {name: again.read(name).tobytes() for name in again.tensors} == {
        name: tensor.numpy().tobytes() for name, tensor in STATE.items()
    }


def written(tmp_path, state, size=1000):
    save_file(state, tmp_path / "in")
    source = open_checkpoint(tmp_path / "in")
    plan = plan_output(tmp_path / "out.safetensors", [source.info(n) for n in source.tensors], {}, size)
    with writing_output(plan) as out:
        for name in source.tensors:
            out.put(name, 0, source.read(name))
        before = {path.name for path in tmp_path.glob("out*")}
    (tmp_path / "in").unlink()
    return plan.index, before


def test_shards_never_replace_those_of_an_earlier_output(tmp_path):
    """New shards get other names, become the checkpoint with the index, and then the earlier ones are removed."""
    index, _ = written(tmp_path, STATE)
    other = tmp_path / "out-mine-00001-of-00005.safetensors"
    other.touch()
    changed = {name: tensor + 1 for name, tensor in STATE.items()}
    earlier = {path.name for path in tmp_path.glob("out*")}
    _, while_writing = written(tmp_path, changed, 2000)
    assert while_writing == earlier
    checkpoint = open_checkpoint(index)
    assert {name: checkpoint.read(name).tolist() for name in STATE} == {n: t.tolist() for n, t in changed.items()}
    shards = set(json.loads(index.read_text())["weight_map"].values())
    assert len(shards) == 2
    assert {path.name for path in tmp_path.iterdir()} == {*shards, index.name, other.name}
    written(tmp_path, STATE)
    assert len(list(tmp_path.iterdir())) == 5 + 2


def test_a_failure_while_shards_are_replaced_leaves_the_earlier_output(tmp_path):
    """Neither a shard nor the index of the earlier output is touched before all is written."""
    index, _ = written(tmp_path, STATE)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    plan = plan_output(
        tmp_path / "out.safetensors", [each.info for each in open_checkpoint(index).tensors.values()], {}, 1000
    )
    with pytest.raises(KeyboardInterrupt), writing_output(plan):
        raise KeyboardInterrupt
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("sharded_first", [False, True])
def test_an_output_replaces_an_earlier_one_in_the_other_form(sharded_first, tmp_path):
    """A folder never holds a file and shards of one name, of which readers take one or the other."""
    forms = [({"w": torch.full((64, 8), 1.0), "v": torch.full((64, 8), 1.0)}, None if not sharded_first else 3000)]
    forms += [({"w": torch.full((64, 8), 2.0), "v": torch.full((64, 8), 2.0)}, 3000 if not sharded_first else None)]
    save_file({"other": torch.ones(1)}, tmp_path / "other.safetensors")
    for state, size in forms:
        save_file(state, tmp_path / "state")
        source = open_checkpoint(tmp_path / "state")
        infos = [tensor.info for tensor in source.tensors.values()]
        with writing_output(plan_output(tmp_path / "model.safetensors", infos, {}, size)) as out:
            for info in infos:
                out.put(info.name, 0, source.read(info.name))
    (tmp_path / "state").unlink()
    (tmp_path / "other.safetensors").unlink()
    found = open_checkpoint(tmp_path)
    assert set(found.read("w").tolist()) == set(found.read("v").tolist()) == {2.0}
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == (1 if sharded_first else 3), names
    assert ("model.safetensors" in names) == sharded_first
