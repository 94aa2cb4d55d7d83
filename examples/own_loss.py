"""A loss of your own beside the library's: the student also learns which items its teacher would put first.

    python examples/own_loss.py log.csv
    python examples/own_loss.py --small       # generated data and a decoder of random weights: seconds

Ranking by a teacher's best items goes back to Tang and Wang, arXiv:1809.07428; this is its simplest form.
"""

import argparse

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

import slmrec_core as slm

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SMALL: dict[str, object] = {
    "backbone": "tiny",
    "teacher.num_layers": 4,
    "student.num_layers": 2,
    "max_seq_len": 20,
    "item_table.training.epochs": 15,
    "item_table.training.learning_rate": 1.0e-2,
    "training.epochs": 3,
    "training.learning_rate": 1.0e-2,
}


def top_items_loss(
    student_scores: Float[Tensor, "target item"], teacher_scores: Float[Tensor, "target item"], k: int = 10
) -> Float[Tensor, ""]:
    """Cross entropy against the teacher's `k` best items; nats per target."""
    best = teacher_scores.topk(k, dim=1).indices
    return -student_scores.log_softmax(dim=1).gather(1, best).mean()


class WithTopItems(slm.Objective):
    """The library's terms and one more, `top_items`."""

    def __init__(
        self,
        student: slm.RecommenderModel,
        config: slm.DistillationConfig,
        blocks: slm.BlockPairing,
        teacher_width: int,
        weight: float = 0.5,
    ) -> None:
        super().__init__(student, config, blocks, teacher_width=teacher_width)
        self.weight = weight
        # The library's terms run the student; what it gave is kept, so that ours need not run it again.
        student.register_forward_hook(self._keep)

    def forward(
        self,
        item_ids: Int[Tensor, "batch seq"],
        read_mask: Bool[Tensor, "batch seq"],
        targets: Int[Tensor, "target"],
        teacher: slm.TeacherSignal | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Every term by name, unweighted."""
        terms = super().forward(item_ids, read_mask, targets, teacher)
        assert teacher is not None
        assert teacher.user_vectors is not None
        ours = self.student.score(self._vectors)
        theirs = self.student.score(teacher.user_vectors)
        return terms | {"top_items": top_items_loss(ours, theirs)}

    def total(self, terms: dict[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """The weighted sum that is minimised."""
        of_library = {name: value for name, value in terms.items() if name != "top_items"}
        return super().total(of_library) + self.weight * terms["top_items"]

    def _keep(self, student: nn.Module, inputs: object, states: slm.HiddenStates) -> None:
        self._vectors = states.user_vectors


def main() -> None:
    """Two students of one teacher: with the library's terms, and with ours beside them."""
    options = read_options()
    config = slm.resolve(SMALL if options.small else {"backbone": options.backbone})
    dataset = slm.SequenceDataset.from_interactions(slm.load_interactions(options.log))
    sasrec, _ = slm.train_sasrec(
        dataset,
        config.item_table.network,
        config.item_table.training,
        config.evaluation,
        config.max_seq_len,
        config.seed,
        DEVICE,
    )
    backbone, item_table = slm.open_backbone(config.backbone), sasrec.item_table.detach()

    print("teacher")
    slm.seed_torch(config.seed, "teacher")
    teacher = slm.RecommenderModel.from_backbone(config.teacher_model(), backbone, item_table)
    train(slm.Objective(teacher), slm.NoTeacher(), dataset, config)
    blocks = slm.pair_blocks(config.student.num_layers, config.teacher.num_layers, config.distillation.num_blocks)
    frozen = slm.LiveTeacher(teacher, blocks.teacher_layers, config.distillation.align_at)

    for weight in (0.0, options.weight):
        print(f"student, top_items weighs {weight}")
        # The same seed: the two start from the same weights.
        slm.seed_torch(config.seed, "student")
        student = slm.RecommenderModel.from_backbone(config.student_model(), backbone, item_table)
        objective = WithTopItems(student, config.distillation, blocks, teacher.hidden_size, weight)
        train(objective, frozen, dataset, config)


def train(
    objective: slm.Objective,
    teacher: slm.LiveTeacher | slm.NoTeacher,
    dataset: slm.SequenceDataset,
    config: slm.ExperimentConfig,
) -> None:
    """Trains, and says of each epoch what every term came to."""
    engine = slm.SingleProcessEngine(objective, config.training, DEVICE)
    data = slm.TrainingData(dataset, config.max_seq_len, config.training)
    evaluator = slm.Evaluator(dataset, config.max_seq_len, config.evaluation, DEVICE)
    slm.fit(engine, data, teacher, evaluator, config.seed, on_epoch=say_epoch)


def say_epoch(progress: slm.Progress) -> None:
    """The terms, and the quality on the valid split: the test split is not for choosing a loss."""
    record = progress.records[-1]
    terms = {name.removeprefix("train/loss_"): value for name, value in record.metrics.items() if "/loss_" in name}
    shown = ", ".join(f"{name} {value:.3f}" for name, value in terms.items())
    print(f"  epoch {record.step}: {shown}; valid NDCG@10 {record.metrics['valid/ndcg_at_10']:.4f}")


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="A term of your own beside the library's.")
    parser.add_argument("log", nargs="?", default="ml-100k", help="a file, or a named set (default: ml-100k)")
    parser.add_argument("--backbone", default=slm.models.SMOLLM2, help="alias, directory, GGUF file or hub id")
    parser.add_argument("--weight", type=float, default=0.5, help="of the term (default: 0.5)")
    parser.add_argument("--small", action="store_true", help="generated data, a tiny decoder, seconds")
    options = parser.parse_args()
    if options.small:
        options.log = "synthetic"
    return options


if __name__ == "__main__":
    main()
