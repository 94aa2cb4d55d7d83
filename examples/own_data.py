"""Your own log → a student that recommends: read, teach, distil, save, ask. Plain torch, no cluster.

    python examples/own_data.py log.csv --user customer --item article --time time
    python examples/own_data.py --small       # generated data and a decoder of random weights: seconds

The log has a row for each event: CSV, TSV, parquet, or one of the public formats as it comes.
"""

import argparse

import torch

import slmrec_core as slm

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SMALL: dict[str, object] = {
    "backbone": "tiny",
    "teacher.num_layers": 4,
    "student.num_layers": 2,
    "max_seq_len": 20,
    "item_table.training.epochs": 15,
    "item_table.training.learning_rate": 1.0e-2,
    "training.epochs": 4,
    "training.learning_rate": 1.0e-2,
}


def main() -> None:
    """From the log to recommendations."""
    options = read_options()
    # Every setting has a default. A dotted name changes one, as `--set` does in a sweep.
    config = slm.resolve(SMALL if options.small else {"backbone": options.backbone})

    interactions = slm.load_interactions(
        options.log, user_column=options.user, item_column=options.item, timestamp_column=options.time
    )
    dataset = slm.SequenceDataset.from_interactions(interactions, config.data.min_user, config.data.min_item)
    print(f"{dataset.num_users:,} users, {dataset.num_items:,} items, {dataset.num_events:,} events")

    # SASRec gives every item a vector. The language model reads these vectors in the place of words.
    sasrec, _ = slm.train_sasrec(
        dataset,
        config.item_table.network,
        config.item_table.training,
        config.evaluation,
        config.max_seq_len,
        config.seed,
        DEVICE,
    )
    say_quality("SASRec", sasrec, dataset, config)
    item_table = sasrec.item_table.detach()

    # The teacher: the first layers of the language model, fine-tuned by cross entropy alone.
    backbone = slm.open_backbone(config.backbone)
    slm.seed_torch(config.seed, "teacher")
    teacher = slm.RecommenderModel.from_backbone(config.teacher_model(), backbone, item_table)
    train(slm.Objective(teacher), slm.NoTeacher(), dataset, config)
    say_quality("teacher", teacher, dataset, config)

    # The student: fewer layers, and after each block of them its states are drawn to the teacher's.
    blocks = slm.pair_blocks(config.student.num_layers, config.teacher.num_layers, config.distillation.num_blocks)
    slm.seed_torch(config.seed, "student")
    student = slm.RecommenderModel.from_backbone(config.student_model(), backbone, item_table)
    objective = slm.Objective(student, config.distillation, blocks, teacher_width=teacher.hidden_size)
    frozen = slm.LiveTeacher(teacher, blocks.teacher_layers, config.distillation.align_at)
    train(objective, frozen, dataset, config)
    say_quality("student", student, dataset, config)

    # What is saved knows your item ids: safetensors and JSON, no pickle.
    slm.Recommender.of_dataset(student, dataset, config.max_seq_len).save_pretrained(options.out)
    model = slm.Recommender.from_pretrained(options.out)
    print(f"Saved to {options.out}")
    for user in range(3):
        history = dataset.item_ids[dataset.history(user, "test")].tolist()
        best = model.recommend([history], k=5).item_ids[0]
        print(f"{dataset.user_ids[user]}: … {', '.join(history[-3:])} → {', '.join(best)}")


def train(
    objective: slm.Objective,
    teacher: slm.LiveTeacher | slm.NoTeacher,
    dataset: slm.SequenceDataset,
    config: slm.ExperimentConfig,
) -> None:
    """Trains, and leaves the weights of the best epoch by the valid split."""
    engine = slm.SingleProcessEngine(objective, config.training, DEVICE)
    data = slm.TrainingData(dataset, config.max_seq_len, config.training)
    evaluator = slm.Evaluator(dataset, config.max_seq_len, config.evaluation, DEVICE)
    slm.fit(engine, data, teacher, evaluator, config.seed, on_epoch=say_epoch)


def say_epoch(progress: slm.Progress) -> None:
    """A line for each epoch."""
    record = progress.records[-1]
    loss, ndcg = record.metrics["train/loss"], record.metrics["valid/ndcg_at_10"]
    print(f"  epoch {record.step}: loss {loss:.3f}, valid NDCG@10 {ndcg:.4f}")


def say_quality(
    name: str, model: slm.RecommenderModel | slm.SASRec, dataset: slm.SequenceDataset, config: slm.ExperimentConfig
) -> None:
    """How a model ranks each user's last item among all items."""
    evaluator = slm.Evaluator(dataset, config.max_seq_len, config.evaluation, DEVICE)
    ((ranking,),) = evaluator.rank_split(model, "test")
    print(f"{name}: test NDCG@10 {ranking.metrics()['test/ndcg_at_10']:.4f}")


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="From your own log to a distilled student.")
    parser.add_argument("log", nargs="?", default="ml-100k", help="a file, or a named set (default: ml-100k)")
    parser.add_argument("--user", default="user_id", help="column of users")
    parser.add_argument("--item", default="item_id", help="column of items")
    parser.add_argument("--time", default="timestamp", help="column of times")
    parser.add_argument("--backbone", default=slm.models.SMOLLM2, help="alias, directory, GGUF file or hub id")
    parser.add_argument("--out", default="student", help="directory of the saved student (default: student)")
    parser.add_argument("--small", action="store_true", help="generated data, a tiny decoder, seconds")
    options = parser.parse_args()
    if options.small:
        options.log = "synthetic"
    return options


if __name__ == "__main__":
    main()
