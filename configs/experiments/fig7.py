"""Fig. 7: examples of the game, with one to three patches."""

PICTURES = {
    f"{count} patch" + "es" * (count > 1): (
        "ctp_jax.visualize",
        "--config=configs/ucf_r3d.py",
        f"--config.game.num_trajectories={count}",
        "--train",
        "--videos=3",
    )
    for count in (1, 2, 3)
}
