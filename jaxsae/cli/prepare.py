"""Prepare raw fragments: clean, damage, split; write a dataset that Hugging Face `datasets` opens."""

import argparse
from pathlib import Path

from jaxsae.cli import arguments
from jaxsae.errors import require


def main(args: argparse.Namespace) -> None:
    """Fragments in, dataset folder out."""
    from jaxsae.files import atomic_path
    from jaxsae.text import arrow, loading

    out = Path(args.out_dir).resolve()
    require(args.seed >= 0, f"--seed must be at least 0, got {args.seed}")
    require(not out.exists(), f"--out_dir must not exist yet, got {out}; remove it or give another name")
    require(Path(args.fragments).is_file(), f"--fragments must be a file, got {args.fragments}, which is none")
    splits = loading.prepare_file(args.fragments, args.seed, args.text_column)
    print(f"{args.fragments}: {sum(len(columns['labels']) for columns in splits.values()):,} fragments with text")
    with atomic_path(out) as temporary:
        temporary.mkdir()
        arrow.save_splits(temporary, splits)
    for split, columns in splits.items():
        damaged, real = (columns["labels"] != -100).sum(), columns["attention_mask"].sum()
        print(
            f"  {split:<10} {len(columns['labels']):>6,} samples  {real:>10,} characters, {damaged / max(real, 1):.1%} damaged"
        )
    print(f"wrote {args.out_dir}")


def add_flags(parser: arguments.Parser) -> None:
    """The command's flags."""
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
