import pytest

from bsa_lightning.evaluation.system_name import SystemName


@pytest.mark.parametrize(
    ("name", "folder", "title"),
    [
        (SystemName("reference"), "reference", "Reference"),
        (SystemName("teacher", num_steps=8), "teacher-8steps", "Teacher (DDIM)"),
        (SystemName("teacher", "", "ddim", True, 4), "teacher-unguided-4steps", "Teacher (DDIM, no guidance)"),
        (SystemName("teacher", "", "dpm-solver++", False, 4), "teacher-dpm-solver++-4steps", "Teacher (DPM-Solver++)"),
        (
            SystemName("teacher", "", "dpm-solver++", True, 4),
            "teacher-dpm-solver++-unguided-4steps",
            "Teacher (DPM-Solver++, no guidance)",
        ),
        (SystemName("teacher", "", "heun", False, 2), "teacher-heun-2steps", "Teacher (heun)"),
        (SystemName("student", "min-snr", num_steps=1), "student-min-snr-1steps", "Student (min-snr)"),
        (
            SystemName("student", "min-snr", num_steps=2, method="segmented-consistency"),
            "student-min-snr-by-segmented-consistency-2steps",
            "Student (segmented consistency, min-snr)",
        ),
        (
            SystemName("student", "bsa", "re-noising", False, 4, "segmented-consistency"),
            "student-bsa-by-segmented-consistency-with-re-noising-4steps",
            "Student (segmented consistency, bsa, re-noising)",
        ),
        (SystemName("baseline-my-tiny", num_steps=8), "baseline-my-tiny-8steps", "Baseline-my-tiny"),
        (
            SystemName("baseline-tiny", unguided=True, num_steps=8),
            "baseline-tiny-unguided-8steps",
            "Baseline-tiny (no guidance)",
        ),
    ],
)
def test_names_of_folders_and_for_readers(name, folder, title):
    assert name.folder == folder
    assert name.title == title
    assert SystemName.from_folder(folder) == name
