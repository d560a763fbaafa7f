from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_two_processes_train_one_model(make_export, tmp_path):
    """Started by torchrun: both average their gradients, one writes the files and speaks."""
    export = make_export()
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "CLEANPLATE_DATA": str(tmp_path), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    settings = ("training.steps=3", "training.patch_px=16", "training.batch=2", "training.validation_pairs=0")

    shown = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "models",
            "train", "nafnet", "--data", str(export), "--config", "tiny", "--out", "both", "--json",
            *(word for setting in settings for word in ("--set", setting)),
        ],
        capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=55, check=False,
    )  # fmt: skip

    assert shown.returncode == 0, shown.stderr[-2000:]
    result = json.loads(shown.stdout)
    assert result["steps"] == 3
    assert Path(result["checkpoint"]).is_file()
    logged = [
        json.loads(line) for line in (tmp_path / "runs" / "both" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in logged] == [3]
