"""The sign model's name table."""

from convert.table import Entry

TABLE = (
    Entry("torso.embed.weight", "embed.embedding", "same"),
    Entry("torso.layers.{i}.norm1.weight", "layers.{i}.norm1.scale", "same"),
    Entry("torso.layers.{i}.attn.q_proj.weight", "layers.{i}.attn.q_proj.kernel", "transpose"),
    Entry("torso.layers.{i}.attn.k_proj.weight", "layers.{i}.attn.k_proj.kernel", "transpose"),
    Entry("torso.layers.{i}.attn.v_proj.weight", "layers.{i}.attn.v_proj.kernel", "transpose"),
    Entry("torso.layers.{i}.attn.out_proj.weight", "layers.{i}.attn.out_proj.kernel", "transpose"),
    Entry("torso.layers.{i}.attn.rope.inv_freq", "layers.{i}.attn.inv_freq", "same"),
    Entry("torso.layers.{i}.norm2.weight", "layers.{i}.norm2.scale", "same"),
    Entry("torso.layers.{i}.mlp.fc1.weight", "layers.{i}.mlp.up.kernel", "transpose"),
    Entry("torso.layers.{i}.mlp.fc2.weight", "layers.{i}.mlp.down.kernel", "transpose"),
    Entry("torso.final_norm.weight", "final_norm.scale", "same"),
    Entry("head.fc1.weight", "head.up.kernel", "transpose"),
    Entry("head.fc1.bias", "head.up.bias", "same"),
    Entry("head.fc2.weight", "head.down.kernel", "transpose"),
    Entry("head.fc2.bias", "head.down.bias", "same"),
)
