"""An S3-compatible server on this machine, and what a rank does that streams from it: importable when spawned."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace
from urllib.request import urlopen

import torch
from ports import free_port

from bsa_lightning.data.datamodule import AudioCapsLatents, Prepared

BUCKET = "latents"


class Server:
    """A moto server in a process of its own, whose requests are in a file."""

    def __init__(self, log):
        port = free_port()
        self.log, self.endpoint = log, f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file)
        for _ in range(600):
            try:
                urlopen(f"{self.endpoint}/moto-api/", timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(log.read_text())

    @property
    def environment(self):
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def gets(self, name):
        """How many times an object was asked for."""
        return sum("GET " in line and f"/{name} " in line for line in self.log.read_text().splitlines())

    def stop(self):
        self.process.kill()
        self.process.wait()


def data_of_rank(store, *, rank, world_size, **settings):
    """A data module as it is on one of several ranks, whose training is at the beginning."""
    data = AudioCapsLatents(store, store, **settings)
    progress = SimpleNamespace(total=SimpleNamespace(processed=0))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, fit_loop=loop)
    data.setup("fit")
    return data


def rows_of(batch):
    """What a batch holds, clip by clip."""
    lengths = batch.conditioning.masks["states"].sum(1).tolist()
    return [
        {
            "index": batch.index[place],
            "mean": batch.posterior.mean[place],
            "std": batch.posterior.std[place],
            "states": batch.conditioning.tensors["states"][place, : lengths[place]],
        }
        for place in range(len(batch))
    ]


def stream(rank, world_size, folder, environment, url, runs):
    """Streams a pass of training and one of validation with each of several settings, and writes down what came."""
    torch.set_num_threads(1)
    os.environ.update(environment)
    for number, settings in enumerate(runs):
        store = Prepared(url, cache=f"{folder}/cache-{number}")
        data = data_of_rank(store, rank=rank, world_size=world_size, **settings)
        loaders = {"train": data.train_dataloader(), "val": data.val_dataloader()}
        found = {name: [rows_of(batch) for batch in loader] for name, loader in loaders.items()}
        data.teardown("fit")
        torch.save(found, f"{folder}/{number}-{rank}.pt")
