"""The bundled model's ID network: an ArcFace IResNet with few channels, trained on rendered people."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from svfr.data.alignment import five_points
from svfr.demo.loop import Losses, fit
from svfr.models.identity import IResNet, align_face
from svfr.synthetic import TEST_SEEDS, render_clip

SCALE = 32.0  # of the cosines. Assumption: half of ArcFace's, for hundreds of people instead of many thousands
MARGIN = 0.3  # [rad], added to the angle to one's own centre. Assumption: ArcFace's 0.5 is for longer training
EMBED_CHUNK = 64  # crops that are embedded together


class ArcFaceLoss(nn.Module):
    """Additive angular margin loss (ArcFace, Deng et al. 2019, Eq. 3).

    Args:
        num_identities: people of the training set.
        embedding_dim: length of an embedding.
        scale: s, of the cosines.
        margin: m [rad].
    """

    def __init__(self, num_identities: int, embedding_dim: int, scale: float = SCALE, margin: float = MARGIN) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(num_identities, embedding_dim) * 0.01)
        self.scale = scale
        self.margin = margin

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """(b, d) embeddings of people `labels` (b,) -> scalar."""
        cosines = functional.normalize(embeddings) @ functional.normalize(self.centres).T  # (b, n)
        own = cosines.gather(1, labels[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
        with_margin = torch.cos((own.acos() + self.margin).clamp(max=torch.pi))
        return functional.cross_entropy(self.scale * cosines.scatter(1, labels[:, None], with_margin), labels)


def render_crops(identities: range, per_identity: int, size: int, first_seed: int) -> np.ndarray:
    """Aligned crops of people, each in another pose, light and place.

    Args:
        identities: who.
        per_identity: crops of each.
        size: side of the rendered frames [px]; every second one is rendered at twice of it.
        first_seed: of the clips.

    Returns:
        (people, per_identity, 112, 112, 3) uint8 RGB.
    """
    crops = np.empty((len(identities), per_identity, 112, 112, 3), np.uint8)
    bar = tqdm(total=crops.shape[0] * per_identity, desc="render faces", unit="face", leave=False)
    for person, identity in enumerate(identities):
        for index in range(per_identity):
            seed = first_seed + person * per_identity + index
            clip = render_clip(seed, 1, size * (1 + index % 2), identity=identity)
            crops[person, index] = align_face(clip.frames[0], five_points(clip.landmarks[0]))
            bar.update()
    bar.close()
    return crops


def to_input(crops: np.ndarray) -> Tensor:
    """(n, 112, 112, 3) uint8 -> (n, 3, 112, 112) float32 in [-1, 1]."""
    # Contiguous: PyTorch 2.15's convolutions crash in the backward pass of channels-last faces on some CPUs.
    return torch.from_numpy(np.ascontiguousarray(crops)).movedim(-1, 1).contiguous().float() / 127.5 - 1


def train_identity(
    encoder: IResNet,
    crops: np.ndarray,
    folder: Path,
    *,
    max_steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    device: torch.device,
) -> None:
    """Train an ID network in place, resumable in `folder`.

    Args:
        encoder: the network.
        crops: (people, per person, 112, 112, 3) uint8 of `render_crops`.
        folder: of the training state.
        max_steps: optimizer steps.
        batch_size: faces of a step.
        learning_rate: the highest.
        seed: of the centres and the batches.
        device: to train on.
    """
    num_people, per_person = crops.shape[:2]
    flat = crops.reshape(-1, *crops.shape[2:])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loss = ArcFaceLoss(num_people, encoder.config.embedding_dim)
    model = nn.ModuleDict({"encoder": encoder, "loss": loss}).to(device)

    def compute(index: int, rng: np.random.Generator) -> Losses:
        chosen = rng.choice(len(flat), size=min(batch_size, len(flat)), replace=False)
        faces = to_input(flat[chosen])
        mirrored = torch.from_numpy(rng.random(len(chosen)) < 0.5)
        faces = torch.where(mirrored[:, None, None, None], faces.flip(-1), faces)
        labels = torch.from_numpy(chosen // per_person).to(device)
        return {"loss": loss(encoder(faces.to(device)).embedding, labels)}

    def generators(start: int) -> Iterator[np.random.Generator]:
        return (np.random.default_rng([seed, index]) for index in range(start, max_steps))

    fit("ID network", model, generators, compute, folder, max_steps=max_steps, learning_rate=learning_rate)


@torch.no_grad()
def embed(encoder: IResNet, crops: np.ndarray) -> Tensor:
    """(n, 112, 112, 3) uint8 aligned faces -> (n, d) embeddings of length 1."""
    chunks = [to_input(crops[i : i + EMBED_CHUNK]) for i in range(0, len(crops), EMBED_CHUNK)]
    embedded = [encoder(chunk.to(encoder.device)).embedding.float().cpu() for chunk in chunks]
    return functional.normalize(torch.cat(embedded))


def verification_accuracy(embeddings: Tensor, num_people: int) -> float:
    """How well a threshold on the cosine tells whether two faces are of one person.

    Args:
        embeddings: (people * k, d) of length 1, person by person.
        num_people: at least 4.

    Returns:
        Mean of the shares of same and of different pairs that are told right, among the odd people; the threshold is
        the best for the even ones.
    """
    per_person = embeddings.unflatten(0, (num_people, -1))
    scores = []
    for half in (per_person[0::2], per_person[1::2]):
        labels = torch.arange(len(half)).repeat_interleave(half.shape[1])
        rows = half.flatten(0, 1)
        one, other = torch.triu_indices(len(rows), len(rows), offset=1)
        scores.append(((rows @ rows.T)[one, other], labels[one] == labels[other]))
    (cosines, same), (unseen, unseen_same) = scores
    thresholds = torch.linspace(-1, 1, 401)
    accuracies = torch.stack([_balanced_accuracy(cosines, same, t) for t in thresholds])
    return _balanced_accuracy(unseen, unseen_same, thresholds[accuracies.argmax()]).item()


def _balanced_accuracy(cosines: Tensor, same: Tensor, threshold: Tensor) -> Tensor:
    told_same = cosines > threshold
    return (told_same[same].float().mean() + (~told_same[~same]).float().mean()) / 2


def unseen_crops(num_people: int, per_person: int, size: int) -> np.ndarray:
    """Crops of people that are never trained on; see `render_crops`."""
    return render_crops(range(TEST_SEEDS, TEST_SEEDS + num_people), per_person, size, first_seed=TEST_SEEDS)
