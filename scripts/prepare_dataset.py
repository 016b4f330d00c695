#!/usr/bin/env python3
"""Prepare raw fragments: clean, damage, split; write a dataset that Hugging Face `datasets` opens."""

import argparse
from pathlib import Path

from jaxsae import cli
from jaxsae.config import require


def main(args: argparse.Namespace) -> None:
    """Fragments in, dataset folder out."""
    from jaxsae import data
    from jaxsae.files import whole

    out = Path(args.out_dir).resolve()
    require(args.seed >= 0, f"--seed must be at least 0, got {args.seed}")
    require(not out.exists(), f"--out_dir must not exist yet, got {out}; remove it or give another name")
    require(Path(args.fragments).is_file(), f"--fragments must be a file, got {args.fragments}, which is none")
    texts = data.read_fragments(args.fragments, args.text_column)
    print(f"{args.fragments}: {len(texts):,} fragments with text")
    splits = data.prepare_fragments(texts, args.seed)
    with whole(out) as aside:
        aside.mkdir()
        data.save_splits(aside, splits)
    for split, columns in splits.items():
        damaged, real = (columns["labels"] != -100).sum(), columns["attention_mask"].sum()
        print(
            f"  {split:<10} {len(columns['labels']):>6,} samples  {real:>10,} characters, {damaged / max(real, 1):.1%} damaged"
        )
    print(f"wrote {args.out_dir}")


if __name__ == "__main__":
    parser = cli.Parser(__doc__ or "")
    parser.add_argument(
        "--fragments",
        required=True,
        metavar="FILE",
        help="a JSON list of fragments, such a list as JSON lines (.jsonl), or a table (.parquet)",
    )
    parser.add_argument("--text-column", default="atf", metavar="NAME", help="where their texts are; default: atf")
    parser.add_argument(
        "--out_dir", "--out-dir", required=True, metavar="DIR", help="the folder to write; must not exist"
    )
    parser.add_argument("--seed", type=int, default=42, help="of damage and split; the original's is 42")
    cli.run(main, parser)
