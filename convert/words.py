"""The words of SAE files: which are applied, which say nothing of the features and why, which must be neutral. Data.

An SAE is its four tensors, the plain formula, and whatever else its file says. A word that is passed over without
being understood is how a TopK is rated as a ReLU: so what is in none of these tables is refused by name.
"""

from typing import Any

from jaxsae.config import ARCHITECTURES as OURS

APPLIED: dict[str, tuple[str, ...]] = {
    "d_in": ("d_in",),
    "d_sae": ("d_sae",),
    "l1_coef": ("l1_coef", "l1_coefficient"),
    "k": ("k", "k_sparse", "top_k", "topk"),
    "threshold": ("threshold", "thresholds"),
    "architecture": ("architecture", "sae_type"),
    "activation": ("activation", "activation_fn", "activation_fn_str", "activation_function"),
    "target_l0": ("target_l0",),
    "layer": ("layer", "hook_layer", "layer_index"),
    "hook_name": ("hook_name", "hook_point", "hook", "hookpoint", "submodule_name"),
}
"""What is applied -> the words that say it; where a file has several, they must agree."""

_TRAINED = "how it was trained, which is done"
_MADE = "which program made it, when, and of which model and text"
_MEASURED = "what was measured of it"
_MACHINE = "on what it was computed, and in which type it was stored"

SILENT: dict[str, str] = (
    dict.fromkeys(
        """lr learning_rate lr_end lr_scheduler lr_scheduler_name lr_schedule lr_warm_up_steps lr_decay_steps
        n_restart_cycles batch_size train_batch_size train_batch_size_tokens epoch epochs n_epochs num_epochs
        max_epochs step steps n_steps num_steps total_steps global_step total_training_steps training_tokens
        n_training_samples warmup warmup_steps decay decay_start weight_decay betas beta1 beta2 adam_beta1 adam_beta2
        adam_epsilon eps momentum optimizer optimizer_name optimizer_state_dict optim scheduler scheduler_state_dict
        rng_state patience early_stopping early_stop grad_clip clip_grad clip_grad_norm gradient_clip max_grad_norm
        seed random_seed l1_lambda l1_alpha l1_penalty l1_weight l1_warm_up_steps l0_coefficient l0_lambda
        l0_warm_up_steps sparsity_coef sparsity_coefficient sparsity_weight sparsity_penalty sparsity_warmup_steps
        lp_norm bandwidth jumprelu_bandwidth aux_coef aux_k aux_k_coef aux_loss_coefficient auxk auxk_alpha
        top_k_aux k_aux dead_after dead_steps dead_feature_window dead_feature_threshold feature_sampling_window
        resample resample_steps resample_every use_ghost_grads expansion expansion_factor dict_mult recipe
        precision init init_method decoder_init decoder_init_norm normalize_decoder
        set_decoder_norm_to_unit_norm shuffle num_workers val_split validation_split max_samples num_samples
        n_samples""".split(),
        _TRAINED,
    )
    | dict.fromkeys(
        """model model_name model_path model_class model_class_name model_type lm_name checkpoint checkpoint_path
        checkpoint_sha256 model_sha256 dataset dataset_path dataset_name dataset_sha256 data_path data_dir split
        padding tokenizer tokenizer_name context_size max_length name run_name wandb_name wandb_project experiment
        description notes note comment author date created created_at timestamp time version library torch_version
        git_commit commit command output_dir save_path save_dir source url license""".split(),
        _MADE,
    )
    | dict.fromkeys(
        """losses training_losses loss final_loss best_loss val_loss val_losses train_loss train_losses mse mse_loss
        recon_loss l1_loss best_epoch history metrics l0 fvu explained_variance dead dead_latents dead_features
        n_dead seconds training_time rows""".split(),
        _MEASURED,
    )
    | dict.fromkeys("device dtype torch_dtype compile amp use_amp mixed_precision".split(), _MACHINE)
)
"""Words that say nothing of the features -> why."""

NEUTRAL: dict[str, tuple[Any, ...]] = (
    dict.fromkeys(
        """normalize normalization normalize_activations normalize_input normalize_inputs input_normalization
        standardize whiten whitening center centered layer_norm input_norm""".split(),
        (None, False, "none", "None", ""),
    )
    | dict.fromkeys(
        "input_scale output_scale scale scaling_factor norm_factor finetuning_scaling_factor".split(),
        (None, False, 1),
    )
    | dict.fromkeys("pre_bias input_bias mean input_mean".split(), (None, False, 0))
    | dict.fromkeys(
        """apply_b_dec_to_input subtract_b_dec signed skip_connection transcode tied tied_weights
        rescale_acts_by_decoder_norm reshape_activations hook_head_index hook_z""".split(),
        (None, False, "none"),
    )
)
"""Words of what is done to rows on their way in or out -> what they may say: that it is not done. A tensor may, where
each of its elements does."""

ARCHITECTURES = {"standard": "relu", "vanilla": "relu", "top_k": "topk"} | {name: name for name in OURS}
"""What files call them -> what they are called here."""

OF_LIBRARIES: dict[str, frozenset[str]] = {
    # its runner's settings, which older folders have at top level; the loader reads none of them
    "saelens": frozenset(
        """act_store_device activations_mixing_fraction autocast autocast_dtype autocast_lm cached_activations_path
        checkpoint_path compile_llm compile_sae context_size dataset_path dataset_trust_remote_code
        dead_feature_threshold dead_feature_window disable_concat_sequences eval_batch_size_prompts
        eval_every_n_wandb_logs exclude_special_tokens feature_sampling_window from_pretrained_path hook_eval
        is_dataset_tokenized jumprelu_init_threshold jumprelu_sparsity_loss_mode jumprelu_tanh_scale
        l1_coefficient l1_coefficient_schedule llm_compilation_mode llm_device log_activations_store_to_wandb
        log_optimizer_state_to_wandb log_to_wandb log_weights_to_wandb logger lr_decay_steps lr_warm_up_steps
        model_from_pretrained_kwargs model_kwargs mse_loss_normalization n_batches_for_norm_estimate
        n_batches_in_buffer n_checkpoints n_eval_batches neuronpedia_id noise_scale output_path pre_act_loss_coefficient
        prefetch_llm_batches prepend_bos resume resume_from_checkpoint sae_compilation_mode sae_lens_training_version
        sae_lens_version save_final_checkpoint scale_sparsity_penalty_by_decoder_norm seqpos_slice
        sequence_separator_token store_batch_size_prompts streaming tokens_per_buffer topk_threshold_lr
        total_training_samples train_batch_size_samples training_tokens use_cached_activations use_chat_formatting
        use_sparse_activations jumprelu_ste_to_input matryoshka_widths use_matryoshka_aux_loss
        verbose wandb_entity wandb_id wandb_log_frequency b_dec_init_method init_encoder_as_decoder_transpose
        decoder_orthogonal_init decoder_heuristic_init decoder_heuristic_init_norm normalize_sae_decoder
        ghost_grad_coefficient_start hook_point_layer use_ghost_grads log_to_wandb activation_fn_kwargs""".split()
    ),
    "dictionary_learning": frozenset(
        """trainer_class threshold_beta threshold_start_step group_fractions group_weights group_sizes k_anneal_steps
        sparsity_function sparsity_queue_length n_sparsity_updates p_start p_end anneal_start anneal_end sparsity_warmup
        ghost_threshold target_l0 d_submodule n_ctxs ctx_len refresh_batch_size out_batch_size remove_bos""".split()
    ),
    "sparsify": frozenset(["multi_topk"]),
}
"""Library -> further words of its configs that say nothing of the features."""
