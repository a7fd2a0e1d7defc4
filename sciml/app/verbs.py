"""Says what each verb does, in a sentence, and how it is called; imports nothing."""

from __future__ import annotations

SUMMARIES = {
    "train": "Train a model, score it on held-out data and write a report.",
    "evaluate": "Score a run on its test data beside the baselines, and draw its report.",
    "forecast": "Forecast from a trained run.",
    "predict": "Say what a trained model predicts of cases in a file, with their uncertainties.",
    "screen": "Search a space of candidates with a trained model, and rank what is found.",
    "thermodynamics": "Sample states at many temperatures with a trained model: order, heat capacity, snapshots.",
    "compare": "Compare a run's model with those trained beside it: error, cost, confidence.",
    "runs": "List the runs that there are, compare or delete some of them.",
    "report": "Draw the figures and the report of a run.",
    "import": "Turn a published model into a run that can be opened and fine-tuned.",
    "prepare": "Turn data as they come into one store for training.",
    "simulate": "Make data with a domain's own simulator.",
    "export": "Write a trained model as one folder that opens anywhere, without its run and its data.",
    "checkpoint": "Look into a checkpoint, verify its checksums, or convert it to one file of weights.",
    "plan": "Say what a training needs and how fast it is on a cluster, without running it.",
    "tune": "Find the fastest strategy on this machine by short trainings of those that a plan puts first.",
    "scaling": "Measure how the error falls with size and cost, and predict it for larger budgets.",
    "launch": "Start a training on a cluster with Slurm: print its batch script, or submit it.",
    "doctor": "Say what is installed and check that processes can talk.",
}
EXAMPLES = {
    "train": [
        "domain=climate",
        "domain=fluids",
        "domain=language data.path='texts/*.txt'",
        "experiment=climate_archive",
        "resume=latest",
        "trainer.max_steps=200 optim.lr=5e-4",
        "-m optim.lr=1e-3,3e-3 model=vit_tiny,unet_tiny",
    ],
    "evaluate": ["run=latest", "run=latest data.path=other.zarr", "run=latest output=json"],
    "forecast": [
        "run=latest lead_time=72h",
        "run=latest lead_time=144h members=8 out=forecast.zarr",
        "run=latest data.path=analysis.grib lead_time=5d",
        "run=latest lead_time=200s init_time=3@100s",
    ],
    "predict": [
        "run=latest structures=alloys.extxyz",
        "run=latest structures='*.cif' out=predicted.extxyz",
        "run=latest structures=alloys.extxyz relax=cell fmax=0.02",
    ],
    "screen": [
        "run=latest elements=CoCuFeNiPd lattices=[fcc]",
        "run=latest elements=CrMnFeCoNi order=5 step=0.1",
        "run=latest elements=CoCuFeNi relax=cell hull=intermetallics.extxyz rank_by=above_hull elastic=5",
    ],
    "thermodynamics": [
        "run=latest elements=CoCuFeNi temperatures=[300,600,900,1200]",
        "run=latest elements=Cu3Pd atoms=108 replicas=8 sweeps=200",
    ],
    "compare": ["run=latest", "run=latest rounds=15 num_threads=1"],
    "runs": ["", "domain=climate", "action=compare run=[monday,tuesday]", "action=delete run=monday"],
    "report": ["run=latest"],
    "import": [
        "climax=5.625deg.ckpt out=runs/climate/climax data.path=era5.zarr",
        "climax=5.625deg.ckpt out=runs/climate/climax mean=normalize_mean.npz std=normalize_std.npz",
    ],
    "prepare": ["domain=climate path=era5.nc out=era5.zarr", "domain=climate path=gs://bucket/era5.zarr grid=64x32"],
    "simulate": ["domain=climate days=30 out=simulation.zarr", "domain=fluids count=200 out=flows.nc"],
    "export": [
        "run=latest out=my_model",
        "run=climate/latest out=my_model dtype=float16",
        "run=latest to=lammps out=my_alloy",
    ],
    "checkpoint": ["run=latest", "run=latest action=verify", "run=latest action=convert out=model.safetensors"],
    "plan": [
        "domain=climate model=vit_5b cluster=frontier devices=512 trainer.global_batch_size=512",
        "domain=materials model=gnn_1b cluster=h100 devices=64 parallel.tp=8 output=json",
    ],
    "tune": [
        "domain=climate devices=2 trials=12 steps=20",
        "domain=climate devices=2 model=vit_small precisions=[fp32] tolerance=3 output=json",
    ],
    "scaling": [
        "domain=climate",
        "domain=fluids sizes=[0.5,1,2] budgets=[1e12,2e12,4e12] target=1e16",
    ],
    "launch": [
        "nodes=2 cluster.devices_per_node=4 domain=climate",
        "cluster=frontier account=ABC123 nodes=64 time=02:00:00 trainer.global_batch_size=512 submit=true",
    ],
    "doctor": ["", "output=json"],
}
