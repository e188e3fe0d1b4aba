// The cross Gram G = A B^T of a pair, tile by tile: the norm of each row, and what is kept for the gradient.
#pragma once

#include "gram_tile.h"
#include "lines.h"
#include "magnitudes.h"

namespace ortho::ORTHO_LEVEL {
namespace {

// What the entries of a row come to: a sum, or the largest of them.
template <Norm norm, class V>
ORTHO_INLINE V joined(V before, V entry) {
  if constexpr (norm == Norm::l1) {
    return before + magnitude(entry);
  } else if constexpr (norm == Norm::max) {
    return larger(before, magnitude(entry));
  } else {
    return before + entry * entry;
  }
}

// dL/dG of an entry; where that takes the whole row or matrix, the entry itself.
template <Norm norm, class V>
ORTHO_INLINE V derivative(V entry) {
  if constexpr (norm == Norm::fro) {
    return entry + entry;
  } else if constexpr (norm == Norm::l1) {
    return sign(entry);
  } else {
    return entry;
  }
}

// Takes finished blocks of G. `rows` has a register for each row of the tile.
template <class T>
struct CrossGramBlocks {
  const CrossGramJob& job;
  const TileExtent& tile;
  T* rows;

  CrossGramBlocks(const CrossGramJob& job, const TileExtent& tile, T* rows)
      : job(job), tile(tile), rows(rows) {
    clear(rows, tile.rows * lanes<T>);
  }

  void prepare(const Block&) const {}

  void operator()(const Block& block, const T* gram) const {
    switch (job.norm) {
      case Norm::fro:
        return take<Norm::fro>(block, gram);
      case Norm::l1:
        return take<Norm::l1>(block, gram);
      case Norm::l21:
        return take<Norm::l21>(block, gram);
      case Norm::max:
        return take<Norm::max>(block, gram);
    }
  }

  template <Norm norm>
  void take(const Block& block, const T* gram) const {
    if constexpr (std::is_same_v<T, double>) {
      if (job.kept_as_float) return take<norm>(block, gram, static_cast<float*>(job.kept));
    }
    take<norm>(block, gram, static_cast<T*>(job.kept));
  }

  template <Norm norm, class Kept>
  void take(const Block& block, const T* gram, Kept* kept) const {
    const std::int64_t columns = smaller(block_columns<T>, tile.columns - block.column);
    if (kept) kept += (tile.row + block.row) * job.columns + tile.column + block.column;
    for (std::int64_t r = 0; r < smaller(block_rows, tile.rows - block.row); ++r) {
      T* own = rows + (block.row + r) * lanes<T>;
      Vector<T> row = load<T>(own);
      std::int64_t c = 0;
      for (; c + lanes<T> <= columns; c += lanes<T>) {
        const Vector<T> entry = load<T>(gram + c);
        row = joined<norm>(row, entry);
        if (kept) store<Kept, T>(kept + c, derivative<norm>(entry));
      }
      if (c < columns) {
        const Vector<T> entry = load_some<T>(gram + c, columns - c);
        row = joined<norm>(row, entry);
        if (kept) store_some<Kept, T>(kept + c, derivative<norm>(entry), columns - c);
      }
      store<T, T>(own, row);
      gram += block_columns<T>;
      if (kept) kept += job.columns;
    }
  }

  // To be called when all blocks are taken.
  void finish_rows() const {
    for (std::int64_t r = 0; r < tile.rows; ++r) {
      double row = 0;
      for (int i = 0; i < lanes<T>; ++i) {
        const auto entry = static_cast<double>(rows[r * lanes<T> + i]);
        if (job.norm != Norm::max) {
          row += entry;
        } else if (entry > row || entry != entry) {
          row = entry;
        }
      }
      job.rows[r] = row;
    }
  }
};

// A register for each row, before the panels and blocks of the tile.
template <class T>
std::int64_t cross_gram_memory(std::int64_t rows, std::int64_t columns) {
  return rows * lanes<T> + tile_memory<T>(rows, columns, false);
}

template <class T>
void cross_gram_tile(const CrossGramJob& job, T* memory) {
  const TileExtent tile = extent_of(job.tile);
  const CrossGramBlocks<T> blocks(job, tile, memory);
  T* panels = memory + tile.rows * lanes<T>;
  T* sums = panels + panels_memory<T>(tile.rows, tile.columns, false);
  with_storage<T>(job.left.storage, [&](auto storage) {
    gram_tile<T, decltype(storage)>(job.left, job.right, nullptr, tile, panels, sums, blocks);
    return 0;
  });
  blocks.finish_rows();
}

template <class T>
void cross_gram_part(const CrossGramJob& job, T* memory, T* partial) {
  gram_part(job.left, job.right, nullptr, job.tile, memory, partial);
}

template <class T>
void cross_gram_from_parts(const CrossGramJob& job, T* memory, T* partials, std::int64_t parts,
                           std::int64_t part_size) {
  const TileExtent tile = extent_of(job.tile);
  const CrossGramBlocks<T> blocks(job, tile, memory);
  finish_parts(tile, partials, parts, part_size, blocks);
  blocks.finish_rows();
}

}  // namespace
}  // namespace ortho::ORTHO_LEVEL
