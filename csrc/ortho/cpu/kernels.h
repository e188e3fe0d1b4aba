// The table of kernels that each instruction level fills. A job is one item of a plan and what it works on;
// memory is scratch of the thread that runs it. T is the type of the arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "../convolution.h"
#include "../matrix.h"
#include "../options.h"
#include "tile_plan.h"

namespace ortho {

struct SquaredSums {
  double diagonal = 0;
  double below_diagonal = 0;
};

// Of a matrix: what is subtracted from the diagonal of its Gram, 1 or, to keep the Gram itself, 0; and
// factors of its lines across the order, one at each depth. Null: 1.
struct GramForm {
  double identity = 1;
  const double* line_scales = nullptr;
};

struct ResidualJob {
  Matrix matrix;
  ResidualTile tile;
  GramForm form;
  double diagonal, off_diagonal;  // factors of the entries that are kept
  void* residual;                 // packed lower triangle of this matrix; null: keep nothing
  bool kept_as_float;             // float entries although the arithmetic is in double
};

// Some rows of a packed lower triangle, which holds the residual of a matrix, or with `inverse_lengths` its
// Gram: entries times those of their row and column are cosines then, and the diagonal of R is 0, or -1 where
// a vector has no length.
struct TriangleJob {
  void* triangle;
  std::int64_t begin, end;
  Norm norm;
  EntryWeights weights;
  const double* inverse_lengths;
};

// A vector with a smaller square counts as zero where vectors are scaled to length 1: its numbers' squares
// have lost digits, and factors of its gradient come near overflow.
template <class T>
constexpr double smallest_square =
    static_cast<double>(std::numeric_limits<T>::min()) / std::numeric_limits<T>::epsilon();

struct LargestEntry {
  double value = -1;  // weighted
  std::int64_t row = 0, column = 0;
};

struct CrossGramJob {
  Matrix left, right;
  ResidualTile tile;
  Norm norm;
  double* rows;          // gets what the entries of each row of the tile come to
  void* kept;            // G's derivative or G, row after row; null: keep nothing
  std::int64_t columns;  // of G
  bool kept_as_float;    // float entries although the arithmetic is in double
};

// What multiplies a matrix in its gradient: a residual, or the derivative of a cross Gram.
struct Factor {
  const void* entries;  // packed lower triangle of a symmetric factor, or dense
  bool dense = false;
  std::int64_t row_stride = 0, column_stride = 0;  // of a dense factor
};

// A tile of the gradient, which is scale times factor times matrix.
struct GradientJob {
  Matrix matrix;
  GradientTile tile;
  Factor factor;
  Gradient gradient;
  double scale;
  bool non_temporal;  // the gradient's stores bypass the caches
};

struct RankUpdateJob {
  Matrix matrix;
  Gradient gradient;
  std::int64_t begin, end;  // range of the depth
  const void* vectors;      // pairs x 2 x order, in the order of the matrix
  std::int64_t pairs;
  double scale;
  bool non_temporal;  // the gradient's stores bypass the caches
};

// A tile of the product of one shift of a convolution: rows and columns count filters.
struct ShiftTile {
  std::int64_t row, rows;
  std::int64_t column, columns;
};

struct ShiftJob {
  const Convolution& kernel;
  Shift shift;
  ShiftTile tile;
  const void* filters;  // packed by pack_filters
  void* residual;       // of this shift; null: keep nothing
  bool kept_as_float;   // float entries although the arithmetic is in double
};

struct ConvolutionGradientJob {
  const Convolution& kernel;
  const ConvolutionGradient& gradient;
  const Shift* shifts;
  std::int64_t shift_count;
  std::int64_t row, rows;  // filters
  std::int64_t channel, channels;
  const void* packed_channels;  // by pack_channels
  const void* residuals;        // of all shifts
  double scale;
};

// Lines of a matrix across its order, from one depth to another. `lines` and `derivatives` of a function of
// them are contiguous, one after the other.
struct LinesJob {
  Matrix matrix;
  std::int64_t begin, end;
  double* inverse_lengths;
  Gradient gradient;
  void *lines, *derivatives;
};

template <class T>
struct Kernels {
  // In numbers of T, as all sizes. Triangular: a tile on the diagonal of a residual.
  std::int64_t (*tile_memory)(std::int64_t rows, std::int64_t columns, bool triangular);
  std::int64_t (*blocks_memory)(std::int64_t rows, std::int64_t columns, bool triangular);
  SquaredSums (*residual_tile)(const ResidualJob&, T* memory);
  void (*residual_part)(const ResidualJob&, T* memory, T* partial);
  SquaredSums (*residual_from_parts)(const ResidualJob&, T* partials, std::int64_t parts,
                                     std::int64_t part_size);
  std::int64_t (*cross_gram_memory)(std::int64_t rows, std::int64_t columns);
  void (*cross_gram_tile)(const CrossGramJob&, T* memory);
  void (*cross_gram_part)(const CrossGramJob&, T* memory, T* partial);
  void (*cross_gram_from_parts)(const CrossGramJob&, T* memory, T* partials, std::int64_t parts,
                                std::int64_t part_size);
  void (*gradient_tile)(const GradientJob&, T* memory);

  // Over a triangle of T. sums[i] += sum over j != i of factors[j] x R_ij^2, or |R_ij| for l1, over the
  // entries of these rows: each counts for its row and for its column. Null: 1; no sums. Returns the sums
  // without weights or factors.
  SquaredSums (*measure_rows)(const TriangleJob&, const double* factors, double* sums);
  LargestEntry (*largest_entry)(const TriangleJob&);
  // Replaces entries by those of half of d norm / d Gram, made symmetric. `inverse_rows`: of l21, one over
  // the length of each row of R. `pulls`: of cosines, the sum over j != i of d norm / d R_ij x R_ij of each
  // row.
  void (*differentiate_rows)(const TriangleJob&, const double* inverse_rows, const double* pulls);

  // 0 of a zero line (see smallest_square), NaN where the square overflows.
  void (*invert_lengths)(const LinesJob&);
  void (*unit_lines)(const LinesJob&);     // makes `lines` of length 1
  void (*project_lines)(const LinesJob&);  // makes the gradient out of the derivatives, which it overwrites

  std::int64_t (*pass_memory)(const Matrix&, std::int64_t vectors);  // for the two passes over W below
  // product += W_b (W_b^T vector), where W_b is W from `begin` to `end` of its depth
  void (*gram_times_vector)(const Matrix&, std::int64_t begin, std::int64_t end, const T* vector,
                            double* product, T* memory);
  void (*rank_update)(const RankUpdateJob&, T* memory);

  // Of convolutions.
  std::int64_t (*packed)(std::int64_t vectors);  // so many vectors are packed
  void (*pack_filters)(const Convolution&, std::int64_t first, std::int64_t filters, T* panels);
  double (*shift_tile)(const ShiftJob&, T* memory);
  void (*pack_channels)(const Convolution&, std::int64_t first, std::int64_t channels, T* panels);
  std::int64_t (*convolution_gradient_memory)(const ConvolutionGradientJob&);
  void (*convolution_gradient_tile)(const ConvolutionGradientJob&, T* memory);
};

// As Kernels<float>::gradient_tile, with operands rounded to bfloat16 and sums in float.
using RoundedGradientTile = void (*)(const GradientJob&, float* memory);

struct CpuKernels {
  Kernels<float> fp32;
  Kernels<double> fp64;
};

extern const CpuKernels baseline_kernels, avx2_kernels, avx512_kernels;
extern const RoundedGradientTile bfloat_gradient_tile;

}  // namespace ortho
