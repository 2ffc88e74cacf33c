import pytest

import qwen2_audio as qa

REVISION = "0" * 40


@pytest.fixture(scope="session")
def hub_cache(tmp_path_factory):
    """A hub cache in which both official names are the bundled checkpoint."""
    home = tmp_path_factory.mktemp("hub")
    for name in ("Qwen2-Audio-7B", "Qwen2-Audio-7B-Instruct"):
        repository = home / "hub" / f"models--Qwen--{name}"
        snapshot = repository / "snapshots" / REVISION
        snapshot.parent.mkdir(parents=True)
        snapshot.symlink_to(qa.nano_path(), target_is_directory=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(REVISION)
    return home
