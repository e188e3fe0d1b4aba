"""The penalties of released codes as formulas, written out in plain torch. Give them float64.

A docstring has the formula as docs/recipes.md shows it, and the file and lines where the released code has it. Strengths
(gamma, lambda, beta) are left out. W is a weight seen as a matrix, one filter a row; R = W Wᵀ - I unless it says otherwise.
"""

import torch
from torch.nn import functional as F


def rows(W):
    """A weight `(out, ...)` as a matrix."""
    return W.flatten(1)


def residual(W):
    """W Wᵀ - I of a matrix, or of each of a batch."""
    gram = W @ W.mT
    return gram - torch.eye(gram.shape[-1]).to(gram)


def sigma(R, v):
    """Two applications of a symmetric R: |R R v| / |R v|."""
    u = R @ v.to(R)
    return (R @ (u / u.norm())).norm()


# Bansal, Chen and Wang, NeurIPS 2018


def original_wide_resnet(W, V):
    """Σ_W |R R v|² / |R v|², R of the smaller Gram, v uniform in [0, 1)

    VITA-Group/Orthogonality-in-CNNs at 99897ee8f2469f83b743fb97922d6ce830e68568, Wide-Resnet/train_n.py:64-95
    """
    total = 0
    for M in (rows(W), rows(V)):
        R = residual(M.T if M.shape[0] > M.shape[1] else M)
        total = total + sigma(R, torch.rand(len(R))) ** 2
    return total


def original_imagenet(W, V):
    """Σ_W |R R v|² / |R v|², R = WᵀW - I, v Gaussian

    VITA-Group/Orthogonality-in-CNNs at 99897ee8f2469f83b743fb97922d6ce830e68568, Imagenet/resnet/train_n.py:83-108
    """
    total = 0
    for M in (rows(W), rows(V)):
        R = residual(M.T)
        total = total + sigma(R, torch.randn(len(R))) ** 2
    return total


def original_keras_resnet(W, v):
    """|R R v| / |R v|, v uniform in [0, 1)

    VITA-Group/Orthogonality-in-CNNs at 99897ee8f2469f83b743fb97922d6ce830e68568, ResNet/resnet_cifar_new.py:53-76
    """
    M = W.permute(2, 3, 1, 0).reshape(-1, len(W))  # Keras has kernels (height, width, in, out)
    return sigma(residual(M.T), v[0])


def original_so(W):
    """‖R‖_F²

    arXiv 1810.09102, section 3
    """
    return residual(rows(W)).square().sum()


def original_dso(W):
    """‖W Wᵀ - I‖_F² + ‖WᵀW - I‖_F²

    arXiv 1810.09102, section 3
    """
    return residual(rows(W)).square().sum() + residual(rows(W).T).square().sum()


def original_mutual_coherence(W):
    """max_ij |R_ij|

    arXiv 1810.09102, section 3
    """
    return residual(rows(W)).abs().max()


# OCNN: Wang, Chen, Chakraborty and Yu, CVPR 2020


def original_orth_dist(W):
    """‖R‖_F of the smaller Gram

    samaonline/Orthogonal-Convolutional-Neural-Networks at aa7f56901c661a124e0cfe72eb2c9dc98045ce94,
    imagenet/utils.py:42-46
    """
    M = rows(W)
    return residual(M if M.shape[0] <= M.shape[1] else M.T).norm()


def original_deconv_orth_dist(W, stride=2, padding=1):
    """‖W ⋆ W - I at the middle shift‖_F, ⋆ of stride 2 and padding 1

    samaonline/Orthogonal-Convolutional-Neural-Networks at aa7f56901c661a124e0cfe72eb2c9dc98045ce94,
    imagenet/utils.py:34-40
    """
    return self_convolution_residual(W, stride, padding).norm()


def original_deconv_orth_dist_of_stride_1(W):
    """‖W ⋆ W - I at the zero shift‖_F, ⋆ of stride 1 and padding 1

    samaonline/Orthogonal-Convolutional-Neural-Networks at aa7f56901c661a124e0cfe72eb2c9dc98045ce94,
    imagenet/main_orth18.py:293
    """
    return original_deconv_orth_dist(W, stride=1)


def original_ocnn_paper(W):
    """‖W ⋆ W - I at the zero shift‖_F², ⋆ of all 25 shifts of a 3 x 3 kernel

    arXiv 1911.12207, section 3
    """
    return self_convolution_residual(W, 1, 2).square().sum()


def self_convolution_residual(W, stride, padding):
    """W ⋆ W `(out, out, shifts, shifts)`, less the identity at the middle shift."""
    product = F.conv2d(W, W, stride=stride, padding=padding)
    middle = product.shape[-1] // 2
    target = torch.zeros_like(product)
    target[:, :, middle, middle] = torch.eye(len(W))
    return product - target


# BigGAN: Brock, Donahue and Simonyan, ICLR 2019


def original_biggan(W):
    """½ Σ_(i≠j) (W Wᵀ)_ij², by its gradient 2 (W Wᵀ ∘ (1 - I)) W

    ajbrock/BigGAN-PyTorch at 98459431a5d618d644d54cd1e9fceb1e5045648d, utils.py:646-655
    """
    gram = rows(W) @ rows(W).T
    return (gram - gram.diagonal().diag()).square().sum() / 2


def original_biggan_default(W):
    """½ ‖R‖_F², by its gradient 2 R W

    ajbrock/BigGAN-PyTorch at 98459431a5d618d644d54cd1e9fceb1e5045648d, utils.py:661-670
    """
    return residual(rows(W)).square().sum() / 2


# GOR: Kurtz, Bar and Giryes, BMVC 2023


def original_gor_inter(W, groups=4):
    """Σ_g ‖R_g‖_F² over blocks of consecutive filters, R_g of the smaller Gram

    YoavKurtz/GOR at 0ca519ef949324811cd74f33a8725fdb56b0cf67, weight_regularization.py:45-60
    """
    return sum(smaller_residual(M).square().sum() for M in rows(W).chunk(groups))


def original_gor_intra(W, groups=4):
    """Σ_j ‖R_j‖_F² over sets of the j-th filters of all blocks, R_j of the smaller Gram

    YoavKurtz/GOR at 0ca519ef949324811cd74f33a8725fdb56b0cf67, weight_regularization.py:26-42
    """
    size = len(W) // groups
    return sum(smaller_residual(rows(W)[j::size]).square().sum() for j in range(size))


def smaller_residual(M):
    return residual(M if M.shape[0] < M.shape[1] else M.T)


# Kim and Yun, IEEE Access 2022


def original_norm_reg(W, V):
    """the mean over layers of ‖R‖_F², R of the larger Gram of a linear or 1 x 1 layer

    Kthyeon/dnn_orthogonality at d47cdbe53be3705d17519e51ff8e39b921d383c7, regularization/orthogonal_weight.py:131-206
    """
    return sum(larger_residual(M).square().sum() for M in (W, V)) / 2


def original_psrip_reg(W, V, w, v):
    """the mean over layers of |R R v|² / |R v|², R of the larger Gram of a linear or 1 x 1 layer, v Gaussian

    Kthyeon/dnn_orthogonality at d47cdbe53be3705d17519e51ff8e39b921d383c7, regularization/orthogonal_weight.py:213-298
    """
    return sum(sigma(larger_residual(M), x[0]) ** 2 for M, x in ((W, w), (V, v))) / 2


def original_ortho_reg(W):
    """Σ_(i≠j) (WᵀW)_ij², as meant

    Kthyeon/dnn_orthogonality at d47cdbe53be3705d17519e51ff8e39b921d383c7, regularization/orthogonal_weight.py:409-468
    """
    gram = rows(W).T @ rows(W)
    return (gram - gram.diagonal().diag()).square().sum()


def original_isometry(W):
    """½ ‖W ⋆ W - I at the zero shift‖_F², ⋆ of all shifts

    Kthyeon/dnn_orthogonality at d47cdbe53be3705d17519e51ff8e39b921d383c7, regularization/orthogonal_weight.py:315-328
    """
    return self_convolution_residual(W, 1, W.shape[-1] - 1).square().sum() / 2


def larger_residual(M):
    return residual(M.T if M.shape[0] < M.shape[1] else M)


# ABD-Net: Chen et al., ICCV 2019


def extremes(G, x, z):
    """The largest and the smallest eigenvalue as ABD-Net estimates them, from x and z."""

    def dominant_eigenvalue(A, x):
        y = A @ x
        return y @ A @ y / (y @ y)

    largest = dominant_eigenvalue(G, x)
    return largest, largest + dominant_eigenvalue(G - largest * torch.eye(len(G)).to(G), z)


def original_svmo(W, start):
    """10 (λ_max - λ_min)² of W Wᵀ, of one power iteration each

    TAMU-VITA/ABD-Net at 502305e37ab36bb23084c64f200437d19a9e9e28, torchreid/regularizers/SVMO.py:20-73
    """
    largest, smallest = extremes(rows(W) @ rows(W).T, *start.T)
    return 10 * (largest - smallest) ** 2


def original_svdo(W, start):
    """(λ_max / λ_min - 1)² of W Wᵀ, of one power iteration each

    TAMU-VITA/ABD-Net at 502305e37ab36bb23084c64f200437d19a9e9e28, torchreid/regularizers/SVDO.py:27-75
    """
    largest, smallest = extremes(rows(W) @ rows(W).T, *start.T)
    return (largest / smallest - 1) ** 2


def original_of_penalty(F, start):
    """32 / batch Σ_F (λ_max - λ_min) of F Fᵀ, F the features of a sample, of one power iteration each

    TAMU-VITA/ABD-Net at 502305e37ab36bb23084c64f200437d19a9e9e28, torchreid/losses/of_penalty.py:26-67
    """
    total = 0
    for M, vectors in zip(F.flatten(2), start, strict=True):
        largest, smallest = extremes(M @ M.T, *vectors.T)
        total = total + largest - smallest
    return total * 32 / len(F)


def original_abd_so(W, v):
    """|R R v| / |R v|, v uniform in [0, 1)

    TAMU-VITA/ABD-Net at 502305e37ab36bb23084c64f200437d19a9e9e28, torchreid/regularizers/SO.py:26-49
    """
    return sigma(residual(rows(W)), v[0])


# OrthDNNs: Jia, Li, Wen, Liu and Tao, TPAMI 2019


def original_orthdnns(W):
    """Σ_i ‖row i of R‖₂

    Gorilla-Lab-SCUT/OrthDNNs at 7391b1751334c485feea212a80abc4dc8430dc1e, LossF/orthogonalLoss.py:38-41
    """
    return residual(rows(W)).norm(dim=1).sum()


def original_orthdnns_srip(W, v):
    """|R R v| / |R v|, v Gaussian

    Gorilla-Lab-SCUT/OrthDNNs at 7391b1751334c485feea212a80abc4dc8430dc1e, LossF/orthogonalLoss.py:42-51
    """
    return sigma(residual(rows(W)), v[0])


# PointNet: Qi, Su, Mo and Guibas, CVPR 2017


def original_pointnet(T):
    """½ Σ_T ‖T Tᵀ - I‖_F² over the batch

    charlesq34/pointnet at 2618f72bc1a0fd21b074096e748016960d44ef55, models/pointnet_cls.py:83-87
    """
    return residual(T).square().sum() / 2


def original_pointnet_pytorch(T):
    """the mean over the batch of ‖T Tᵀ - I‖_F

    fxia22/pointnet.pytorch at bafbf401e0af19be3262e448c59313fd2be0e421, pointnet/model.py:177-184
    """
    return residual(T).flatten(1).norm(dim=1).mean()


# Prompts, codebooks, adapters, routers


def original_vector_quantize(codes):
    """Σ cos(c_i, c_j)² / (h n²) - 1 / n, of h codebooks of n codes

    lucidrains/vector-quantize-pytorch at 0d7d1aa83334b6f2f8a40306bece75cdaa13d065,
    vector_quantize_pytorch/vector_quantize_pytorch.py:340-345
    """
    h, n = codes.shape[:2]
    unit = F.normalize(codes, dim=-1, eps=1e-6)
    return (unit @ unit.mT).square().sum() / (h * n**2) - 1 / n


def original_adalora(A, B):
    """the mean over factors of ‖A Aᵀ - I‖_F and ‖BᵀB - I‖_F

    huggingface/peft at 5d602fdbff04c33c1c4de55cda9d4ae1d7cb7e40, src/peft/tuners/adalora/model.py:239-253
    """
    return (residual(A).norm() + residual(B.T).norm()) / 2


def original_coda_prompt(K, A, P):
    """Σ ‖t tᵀ - I‖_F² / n² over keys, attentions and prompts, n of each

    GT-RIPL/CODA-Prompt at 6417d4f68754be68b697c7ca2323ee61e791e1a3, models/zoo.py:197-198
    """
    return sum(residual(rows(t)).square().mean() for t in (K, A, P))


def original_o_lora(A_new, A_old):
    """Σ_ij |(A_old A_newᵀ)_ij|

    cmnfriend/O-LoRA at 07117e1fc4a5f5ad9308a815a42cee8f46502dc8, src/uie_trainer_lora.py:91-97
    """
    return (A_old @ A_new.T).abs().sum()


def original_ernie(W):
    """‖Ŵ Ŵᵀ - I‖_F² / E², Ŵ the E columns of the gate as unit rows

    PaddlePaddle/ERNIE at fec4aa6c83a1f130e79f18d4782954a04e33c54a, ernie/moe/topk_gate.py:519-547
    """
    return residual(F.normalize(W.T, eps=1e-12)).square().mean()


def original_ernie_groups(W, groups=2):
    """the mean over k groups of experts of ‖Ŵ Ŵᵀ - I‖_F² / (E / k)²

    PaddlePaddle/ERNIE at fec4aa6c83a1f130e79f18d4782954a04e33c54a, ernie/moe/topk_gate.py:537-547
    """
    unit = F.normalize(W.T, eps=1e-12)
    return residual(unit.reshape(groups, -1, unit.shape[1])).square().mean()
