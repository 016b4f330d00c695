"""The restoration model's name table."""

from convert.table import Entry

TABLE = (
    Entry("embed.weight", "embed.embedding", "same"),
    Entry("layers.{i}.ln1.weight", "layers.{i}.ln1.scale", "same"),
    Entry("layers.{i}.ln1.bias", "layers.{i}.ln1.bias", "same"),
    Entry("layers.{i}.attn.q_proj.weight", "layers.{i}.attn.q_proj.kernel", "transpose"),
    Entry("layers.{i}.attn.q_proj.bias", "layers.{i}.attn.q_proj.bias", "same"),
    Entry("layers.{i}.attn.k_proj.weight", "layers.{i}.attn.k_proj.kernel", "transpose"),
    Entry("layers.{i}.attn.k_proj.bias", "layers.{i}.attn.k_proj.bias", "same"),
    Entry("layers.{i}.attn.v_proj.weight", "layers.{i}.attn.v_proj.kernel", "transpose"),
    Entry("layers.{i}.attn.v_proj.bias", "layers.{i}.attn.v_proj.bias", "same"),
    Entry("layers.{i}.attn.out_proj.weight", "layers.{i}.attn.out_proj.kernel", "transpose"),
    Entry("layers.{i}.attn.out_proj.bias", "layers.{i}.attn.out_proj.bias", "same"),
    Entry("layers.{i}.ln2.weight", "layers.{i}.ln2.scale", "same"),
    Entry("layers.{i}.ln2.bias", "layers.{i}.ln2.bias", "same"),
    Entry("layers.{i}.ff.0.weight", "layers.{i}.ff.up.kernel", "transpose"),
    Entry("layers.{i}.ff.0.bias", "layers.{i}.ff.up.bias", "same"),
    Entry("layers.{i}.ff.2.weight", "layers.{i}.ff.down.kernel", "transpose"),
    Entry("layers.{i}.ff.2.bias", "layers.{i}.ff.down.bias", "same"),
    Entry("final_ln.weight", "final_ln.scale", "same"),
    Entry("final_ln.bias", "final_ln.bias", "same"),
    Entry("head.weight", "head.kernel", "transpose"),
    Entry("head.bias", "head.bias", "same"),
)
