import json

import pytest

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.flow_scheduler import flow_scheduler, flow_shift
from bsa_lightning.models.model_folder import ModelFolder


def write(folder, **settings):
    flow_scheduler(num_train_timesteps=1000).save_pretrained(folder / "scheduler")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return ModelFolder(folder)


def test_what_is_saved_is_read(tmp_path):
    flow_scheduler(num_train_timesteps=1, shift=3.0).save_pretrained(tmp_path / "scheduler")
    model = ModelFolder(tmp_path)
    assert flow_shift(model, num_train_timesteps=1) == flow_shift(model, num_train_timesteps=1, shift=3.0) == 3.0
    assert flow_shift(write(tmp_path, prediction_type="flow_prediction"), num_train_timesteps=1000, shift=1.0) == 1.0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"_class_name": "DDIMScheduler"}, '_class_name is "DDIMScheduler" in .* must be FlowMatchEuler'),
        ({"prediction_type": "epsilon"}, 'prediction_type is "epsilon" in .* must be flow_prediction'),
        ({"num_train_timesteps": 1}, "num_train_timesteps is 1 in .* set it to 1000"),
        ({"shift": 3.0}, r"shift is 3\.0 in .* sampled with 1; correct it"),
        ({"shift": 0}, "shift is 0 in .* a number above 0"),
        ({"shift": "big"}, "shift is big in .* a number above 0"),
        *[
            ({name: True}, f"{name} is True in .* without it")
            for name in (
                "use_dynamic_shifting",
                "stochastic_sampling",
                "invert_sigmas",
                "use_karras_sigmas",
                "use_exponential_sigmas",
                "use_beta_sigmas",
            )
        ],
        ({"shift_terminal": 0.02}, r"shift_terminal is 0\.02 in"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_scheduler_that_walks_another_grid_is_refused(tmp_path, setting, message):
    with pytest.raises(UserError, match=message):
        flow_shift(write(tmp_path, **setting), num_train_timesteps=1000, shift=1.0)


def test_a_missing_scheduler_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"it has no scheduler/scheduler_config\.json"):
        flow_shift(ModelFolder(tmp_path), num_train_timesteps=1000)
