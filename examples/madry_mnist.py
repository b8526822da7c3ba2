"""A network that is adversarially trained withstands PGD: the full recipe, from a file of settings.

In adversarial training (Madry et al. 2018, arXiv:1706.06083) every batch is attacked by PGD, and the network is trained
on the adversarial images. configs/ has a file of settings for each network of models.zoo. If training was interrupted,
it goes on from its checkpoint. The last line says whether the claim holds: under PGD with 40 steps more than half of
the images are classified correctly.
"""

from recipes import recipe_options, run

if __name__ == "__main__":
    run(recipe_options(__doc__, "mnist-madry-linf.toml"), steps=40, least=0.5)
