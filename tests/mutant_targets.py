"""What tests/mutants.py breaks, the tests that must notice, and the changes that nothing can notice."""

from __future__ import annotations

_REFERENCES = ("tests/scripts/test_epochs.py",)
_MOCO = ("tests/scripts/test_moco_reference.py", *_REFERENCES)
_TSCLS = ("tests/scripts/test_tscls_reference.py", *_REFERENCES)
_LOOP = ("tests/pretraining/test_pretraining.py",)
_RUNS = ("tests/scripts/test_two_ranks_reference.py", "tests/scripts/test_learning.py")
_OPTIONS = "tests/pretraining/test_options.py"
_PRETRAINING = tuple(f"tests/pretraining/test_{name}.py" for name in ("state", "step", "resuming"))


def _maps(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/mapping/test_{name}.py" for name in names)


# Target: the tests that must notice, the quick ones first. What is not there is skipped.
TARGETS = {
    "utils/files.py": ("tests/utils/test_files.py", "tests/utils/test_checkpoint.py", "tests/utils/test_folders.py"),
    "utils/locks.py": ("tests/utils/test_locks.py", "tests/utils/test_folders.py"),
    "utils/results/folders.py": ("tests/utils/test_folders.py", "tests/scripts/test_two_at_once.py"),
    "utils/results/tensorboard.py": ("tests/utils/test_logs.py", "tests/scripts/test_full_disks.py"),
    "utils/runtime/limited.py": ("tests/utils/test_limited.py",),
    "utils/schedule.py": ("tests/utils/test_schedule.py", *_MOCO),
    "moco/loss.py": ("tests/moco/test_loss.py", "tests/moco/test_moco.py"),
    "moco/loader.py": ("tests/moco/test_loader.py", *_MOCO),
    "moco/batchnorm.py": ("tests/moco/test_batchnorm.py", "tests/moco/test_moco.py", *_MOCO),
    "moco/builder.py": ("tests/moco/test_moco.py", *_MOCO, *_RUNS),
    "pretraining/data.py": ("tests/pretraining/test_labels.py", *_MOCO, *_PRETRAINING, *_RUNS),
    "pretraining/step.py": ("tests/pretraining/test_step.py", *_MOCO, *_RUNS),
    "utils/results/state.py": ("tests/utils/test_state.py", "tests/pretraining/test_state.py"),
    "utils/results/resume.py": ("tests/utils/test_resume.py",),
    "utils/results/keeper.py": ("tests/utils/test_keeper.py",),
    "utils/results/losses.py": ("tests/utils/test_losses.py",),
    "utils/runtime/signals.py": ("tests/utils/test_stopping.py",),
    "utils/runtime/jobs.py": ("tests/utils/test_jobs.py",),
    "utils/precision.py": ("tests/utils/test_precision.py", "tests/pretraining/test_step.py"),
    "datasets/inseason.py": ("tests/datasets/test_inseason.py",),
    "datasets/numbers.py": ("tests/datasets/test_numbers.py",),
    "pretraining/resume.py": (*_PRETRAINING, "tests/scripts/test_mistakes.py", "tests/pretraining/test_same_run.py"),
    "tscls/resume.py": ("tests/tscls/test_resuming.py",),
    "pretraining/joint.py": tuple(
        f"tests/pretraining/test_{name}.py" for name in ("simclr", "barlow", "supcon", "pretexts")
    ),
    "pretraining/simclr.py": ("tests/pretraining/test_simclr.py", _OPTIONS, "tests/pretraining/test_pretexts.py"),
    "pretraining/barlow.py": ("tests/pretraining/test_barlow.py", _OPTIONS, "tests/pretraining/test_pretexts.py"),
    "pretraining/bert.py": ("tests/pretraining/test_bert.py", _OPTIONS, "tests/pretraining/test_pretexts.py"),
    "pretraining/labels.py": ("tests/pretraining/test_labels.py", _OPTIONS, "tests/pretraining/test_pretexts.py"),
    "pretraining/supcon.py": ("tests/pretraining/test_supcon.py", _OPTIONS, "tests/pretraining/test_pretexts.py"),
    "pretraining/summed.py": ("tests/pretraining/test_summed.py", _OPTIONS, "tests/pretraining/test_pretexts.py"),
    "tscls/inseason.py": ("tests/tscls/test_inseason.py",),
    "utils/results/dates.py": ("tests/utils/test_dates.py",),
    "tscls/test.py": ("tests/tscls/test_testing.py", "tests/pretraining/test_pretexts.py"),
    "tscls/inputs.py": (*_TSCLS, "tests/scripts/test_tscls_full_series.py", "tests/tscls", *_RUNS),
    "tscls/runs.py": ("tests/tscls/test_resuming.py", "tests/tscls/test_calibration.py", *_TSCLS, *_RUNS),
    "tscls/training.py": ("tests/tscls/test_fit.py", *_TSCLS, "tests/tscls", *_RUNS),
    "tscls/classifier.py": ("tests/tscls/test_classifier.py", "tests/tscls/test_loading.py", *_TSCLS, "tests/tscls"),
    "tscls/evaluation.py": ("tests/tscls/test_evaluation.py", *_TSCLS, "tests/tscls", *_RUNS),
    "tscls/probe.py": ("tests/tscls/test_probe.py",),
    "main_moco.py": (
        *_LOOP,
        *_MOCO,
        *_PRETRAINING,
        "tests/tscls/test_probe.py",
        *_RUNS,
        "tests/scripts/test_mistakes.py",
    ),
    "main_tscls.py": (*_TSCLS, "tests/tscls", *_RUNS, "tests/scripts/test_mistakes.py"),
    "datasets/checksums.py": ("tests/datasets/test_checksums.py", "tests/datasets/test_store.py"),
    "datasets/storefiles.py": ("tests/datasets/test_checksums.py", "tests/datasets/test_store.py"),
    "datasets/npyfile.py": ("tests/datasets/test_checksums.py", "tests/datasets/test_store.py"),
    "datasets/screening.py": ("tests/datasets/test_screening.py",),
    "datasets/duplicates.py": ("tests/datasets/test_screening.py",),
    "datasets/check.py": ("tests/datasets/test_screening.py",),
    "datasets/vectorfile.py": ("tests/datasets/test_hostile.py",),
    "datasets/xmlfile.py": ("tests/datasets/test_hostile.py",),
    "utils/archive.py": ("tests/utils/test_damaged_checkpoints.py", "tests/tscls/test_loading.py"),
    "utils/digests.py": ("tests/utils/test_damaged_checkpoints.py",),
    "mapping/windows.py": _maps("windows", "predict"),
    "mapping/parts.py": _maps("parts", "interruptions"),
    "mapping/writing.py": _maps("writing", "outputs", "interruptions"),
    "mapping/running.py": _maps("running", "predict", "interruptions"),
    "mapping/cluster.py": _maps("cluster"),
    "mapping/identity.py": _maps("identity", "interruptions", "outputs"),
    "mapping/area.py": _maps("area", "predict"),
    "mapping/areas.py": _maps("areas"),
    "mapping/codes.py": _maps("codes", "assess", "sample", "fields"),
    "mapping/legend.py": _maps("legend", "outputs"),
    "mapping/tiff.py": _maps("tiff", "outputs"),
    "mapping/allocation.py": _maps("allocation"),
    "mapping/evalblocks.py": _maps("evalblocks"),
    "mapping/reference.py": _maps("assess"),
    "mapping/ground.py": _maps("ground", "assess"),
    "mapping/tables.py": _maps("assess"),
    "mapping/vectors.py": _maps("fields", "assess"),
    "mapping/sample.py": _maps("sample"),
    "mapping/fields.py": _maps("fields"),
    "mapping/quicklook.py": _maps("quicklook", "outputs"),
    "mapping/styles.py": _maps("outputs"),
    "mapping/arguments.py": _maps("mistakes", "predict"),
    "mapping/predict.py": _maps("command", "mistakes", "outputs", "predict", "interruptions"),
    "mapping/assess.py": _maps("assess"),
}

# (target, the changed line as it then reads, why nothing can notice it)
_CLOCK = "the clock is never exactly there"
_NEVER = "no random number is exactly that"
_ABSENT = "any small number stands for a loss that is not measured"
_SYMMETRIC = "the matrix is symmetric"
_CHUNKS = "the sum over the queue is the same in one piece and in chunks; only speed differs"
_PROMOTED = "the first chunk's float32 logits promote it"
_ITSELF = "the mean over one pixel is the pixel"
_LAYOUT = "line breaks in the manifest are for people"
_UTF8 = "UTF-8 is the encoding of the system too"
_PAM = "GDAL has nothing to write into an .aux.xml today; the option keeps it so"
_COMPARED = "windows of any size are compared with the same result"
_BISECTION = "any bound above the scale will do, and 100 halvings too"
EQUIVALENT: tuple[tuple[str, str, str], ...] = (
    (
        "moco/loss.py",
        "whole = (queries.device.type == 'cpu') or torch.compiler.is_compiling()  # then one large product is fastest",
        _CHUNKS,
    ),
    ("moco/loss.py", "for keys in queue.split(queue.shape[1] if (not (whole)) else CHUNK, dim=1):", _CHUNKS),
    ("moco/loss.py", "largest = queries.new_full((len(queries), 1), float('-inf'))", _PROMOTED),
    ("moco/loss.py", "total, weighted = torch.zeros_like(largest), torch.zeros_like(queries)", _PROMOTED),
    ("moco/builder.py", "return F.normalize(projected.float())", "1 is the default of dim"),
    ("moco/loss.py", "for keys in queue.split(queue.shape[0] if whole else CHUNK, dim=1):", _CHUNKS),
    (
        "main_moco.py",
        'common = {"lr": args.learning_rate, "weight_decay": args.weight_decay, "fused": False}',
        "the same arithmetic in another kernel",
    ),
    ("pretraining/step.py", "self.optimizer.zero_grad()", "True is the default of set_to_none"),
    ("tscls/training.py", "if row.get(name, 1) > HUGE_LOSS:", _ABSENT),
    (
        "pretraining/simclr.py",
        "return F.cross_entropy(logits, partner), (logits.detach().argmax(0) == partner).float().mean()",
        _SYMMETRIC,
    ),
    (
        "pretraining/barlow.py",
        "loss, agreement = redundancy(second, first, self.weight)",
        "the matrix is transposed, and its elements are squared",
    ),
    (
        "pretraining/bert.py",
        "sums = torch.zeros(3, device=world.device)  # restored, contaminated, observations",
        "float32 sums differ only after millions of series",
    ),
    ("pretraining/bert.py", "chosen = ((draw <= probability)) & real", _NEVER),
    ("pretraining/bert.py", "sign = torch.where((draw <= probability / 2), 1.0, -1.0) * chosen", _NEVER),
    (
        "pretraining/bert.py",
        "values = (fitted.values - sign[..., None] * noise * uniform(fitted.values.shape, device, generator))",
        "as many observations become darker as brighter",
    ),
    (
        "tscls/probe.py",
        "linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2001))",
        "it has converged by then",
    ),
    ("pretraining/joint.py", "return self.compare(second, first, *known)", "only barlow has it, which is symmetric"),
    (
        "pretraining/labels.py",
        "totals = torch.zeros(3, device=world.device)  # loss, hits, series",
        "float32 sums differ only after millions of series",
    ),
    (
        "pretraining/supcon.py",
        "log_probability = logits.log_softmax(0).masked_fill(~positive, 0)",
        _SYMMETRIC,
    ),
    ("pretraining/supcon.py", "loss = -(log_probability.sum(0) / positive.sum(1)).mean()", _SYMMETRIC),
    ("pretraining/supcon.py", "loss = -(log_probability.sum(1) / positive.sum(0)).mean()", _SYMMETRIC),
    ("pretraining/supcon.py", "nearest = logits.detach().argmax(0)", _SYMMETRIC),
    ("mapping/windows.py", "largest = max(classes)", "the code comes first in an entry"),
    ("mapping/windows.py", "if (self.options.smooth >= 1):", _ITSELF),
    ("mapping/windows.py", "if self.options.smooth > 0:", _ITSELF),
    (
        "mapping/windows.py",
        "store = Store('the images', Path('images'), {'classes': None}, pixels.bands, pixels.doy, offsets)",
        "names for errors that series from images do not have",
    ),
    (
        "mapping/windows.py",
        "total -= padded.take(range(shift, shift + size), axis)",
        "sums are taken along two axes, so the sign is changed twice",
    ),
    ("mapping/parts.py", "write_text(self.manifest, json.dumps(identity))", _LAYOUT),
    ("mapping/parts.py", "write_text(self.manifest, json.dumps(identity, indent=0))", _LAYOUT),
    ("mapping/parts.py", "return json.loads(self.manifest.read_text())", _UTF8),
    (
        "mapping/parts.py",
        "return self.out.is_file() and file.is_file() and file.read_text() == sha256_of(self.out)",
        _UTF8,
    ),
    ("mapping/parts.py", "with np.load(io.BytesIO(data[DIGEST:])) as arrays:", "False is the default of allow_pickle"),
    ("mapping/writing.py", "with _without_stderr(), rasterio.Env():", _PAM),
    ("mapping/writing.py", "with _without_stderr(), rasterio.Env(GDAL_PAM_ENABLED=True):", _PAM),
    ("mapping/writing.py", "for window in grid.windows(5 * TILE):", _COMPARED),
    (
        "mapping/writing.py",
        "if not np.array_equal(other.read(window=window), one.read(window=window)):",
        "either may be compared with the other",
    ),
    (
        "mapping/identity.py",
        "told = (grid.crs.to_wkt(), *list(grid.transform)[:7], *header[2:8], header.masked, header.block)",
        "the seventh number of a transform is always 0",
    ),
    (
        "mapping/identity.py",
        "told = (grid.crs.to_wkt(), *list(grid.transform)[:6], *header[2:9], header.masked, header.block)",
        "what is told twice is told",
    ),
    ("mapping/allocation.py", "below, above = 0.0, float(((high * weights)).max())", _BISECTION),
    ("mapping/allocation.py", "for _ in range(201):", _BISECTION),
    ("mapping/allocation.py", "if (np.clip(middle * weights, low, high).sum() <= size):", _BISECTION),
)
