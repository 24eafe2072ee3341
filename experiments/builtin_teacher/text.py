"""Step 2 of the built-in teacher: a tokenizer and a T5 encoder whose states say what a caption describes.

The encoder learns by answering questions about captions: a few learned queries attend to its states and must
name every attribute of the soundscape. So the states hold what is said, and of what (two groups of events may
have two pitches), before any sound is seen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bsa_lightning.data.soundscape_questions import BACKGROUND_QUESTIONS, EVENT_QUESTIONS, answers
from bsa_lightning.data.soundscapes import draw
from experiments.builtin_teacher.recordings import PHRASES, Recordings

NO_SOUNDSCAPE = [0] * (2 * len(EVENT_QUESTIONS) + len(BACKGROUND_QUESTIONS))


class Captions(LightningDataModule):
    """Captions of soundscapes and of recordings, tokenized by a tokenizer that is trained on them, with what they say.

    Args:
        out: the model folder whose ``tokenizer/`` is written.
        num_captions: for training, a quarter of them of recordings; a tenth more validate.
        batch_size: captions in a batch.
        vocab_size: byte pairs merge until all caption words are whole; other words fall apart into letters.
    """

    def __init__(self, out: str, num_captions: int = 40_000, batch_size: int = 128, vocab_size: int = 640) -> None:
        super().__init__()
        self.out = Path(out)
        self.num_captions = num_captions
        self.batch_size = batch_size
        self.vocab_size = vocab_size

    def setup(self, stage: str) -> None:
        del stage
        from transformers import PreTrainedTokenizerFast

        total = self.num_captions * 11 // 10
        recordings = Recordings(total, seed=200)
        captions, truth = [], []
        for i in range(total):
            if i % 4:
                soundscape = draw(np.random.default_rng([200, i]))
                captions.append(soundscape.caption())
                truth.append([*answers(soundscape), 0])
            else:
                captions += recordings.captions(i // 4)
                truth.append([*NO_SOUNDSCAPE, 1 + recordings.kind(i // 4)])
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=_train_tokenizer(captions, self.vocab_size),
            pad_token="<pad>",
            eos_token="</s>",
            unk_token="<unk>",
            model_max_length=128,
        )
        self.tokenizer.save_pretrained(self.out / "tokenizer")
        tokens = self.tokenizer(captions, padding=True, return_tensors="pt")
        self.items = TensorDataset(tokens.input_ids, tokens.attention_mask, torch.tensor(truth))

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        items = torch.utils.data.Subset(self.items, range(self.num_captions))
        return DataLoader(items, self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(torch.utils.data.Subset(self.items, range(self.num_captions, len(self.items))), 500)


class TrainText(LightningModule):
    """A T5 encoder, trained by questions.

    Args:
        out: the model folder whose ``text_encoder/`` is written.
        width: of the states.
        num_layers: of the encoder.
        vocab_size: as the tokenizer's.
        learning_rate: linear to zero.
    """

    def __init__(
        self, out: str, width: int = 96, num_layers: int = 2, vocab_size: int = 640, learning_rate: float = 1e-3
    ) -> None:
        super().__init__()
        from transformers import T5Config, T5EncoderModel

        self.out = Path(out)
        self.learning_rate = learning_rate
        config = T5Config(
            vocab_size=vocab_size, d_model=width, d_kv=width // 4, num_heads=4, d_ff=2 * width, num_layers=num_layers,
            feed_forward_proj="gated-gelu", dropout_rate=0.0, pad_token_id=0, eos_token_id=1,
        )  # fmt: skip
        self.encoder = T5EncoderModel(config)
        self.queries = nn.Parameter(torch.randn(3, width))
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.event_heads = nn.ModuleList([nn.Linear(width, classes) for classes in EVENT_QUESTIONS])
        questions = (*BACKGROUND_QUESTIONS, 1 + len(PHRASES))
        self.background_heads = nn.ModuleList([nn.Linear(width, classes) for classes in questions])

    def forward(self, tokens: Tensor, mask: Tensor) -> list[Tensor]:
        states = self.encoder(tokens, attention_mask=mask).last_hidden_state
        queries = self.queries.expand(len(tokens), -1, -1)
        first, second, background = self.attention(queries, states, states, key_padding_mask=mask == 0)[0].unbind(1)
        heads = [(first, self.event_heads), (second, self.event_heads), (background, self.background_heads)]
        return [head(state) for state, group in heads for head in group]

    def training_step(self, batch: list[Tensor]) -> Tensor:
        tokens, mask, truth = batch
        losses = [nn.functional.cross_entropy(y, truth[:, i]) for i, y in enumerate(self(tokens, mask))]
        # Unit-variance states suit a cross-attention that is trained on them later.
        loss = torch.stack(losses).sum()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor]) -> None:
        tokens, mask, truth = batch
        right = torch.stack([y.argmax(-1) == truth[:, i] for i, y in enumerate(self(tokens, mask))])
        self.log_dict({"val/answers_right": right.float().mean(), "val/captions_right": right.all(0).float().mean()})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_end(self) -> None:
        self.encoder.half().save_pretrained(self.out / "text_encoder")


def _train_tokenizer(captions: list[str], vocab_size: int) -> object:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz0123456789,.'-"),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer
