// Threads that bring operands for those that compute (sm_90a, -DORTHO_LOADERS): two warpgroups load, split
// and write chunks to shared memory while two others multiply. No card has run them yet; they are compiled
// where that is asked for.
//
// Those that compute post an item, while they still complete the one before. The loaders find its operands
// themselves and bring all its chunks, up to so many stages ahead. Barriers of a stage say when its chunk is
// there, for either warpgroup by itself, and when its memory is free again.
#pragma once

#include "launch_plan.h"
#include "reduce.cuh"
#include "staging.cuh"
#include "terms.cuh"

namespace ortho::cuda {

#if defined(ORTHO_LOADERS) && defined(ORTHO_WARPGROUPS)
#  define ORTHO_WITH_LOADERS
#endif

#ifdef ORTHO_LOADERS
constexpr int loader_threads = 256;
constexpr std::size_t tile_shared_bytes = 73'728, loaded_bytes = 133'120, mail_bytes = 128;
#else
constexpr int loader_threads = 0;
constexpr std::size_t tile_shared_bytes = 100'352, loaded_bytes = 0, mail_bytes = 0;
#endif
// Of a block that computes in C, and of its shared memory.
template <class C>
constexpr int tile_block_threads = tile_threads + (std::is_same_v<C, float> ? loader_threads : 0);
template <class C>
constexpr std::size_t tile_block_bytes =
    tile_shared_bytes + (std::is_same_v<C, float> ? loaded_bytes + mail_bytes : 0);

#ifdef ORTHO_WITH_LOADERS

// Of a kernel that computes in C.
template <class C>
constexpr bool has_loaders = std::is_same_v<C, float>;

constexpr int most_stages = 4;
// Of a thread that loads, and of one that computes: together all that a multiprocessor has.
constexpr int loader_registers = 96, computing_registers = 160;
static_assert((loader_registers + computing_registers) * 256 == 65536);

static_assert(tile_threads == 256 && pass_threads == 256);  // as block_barrier() has it
ORTHO_DEVICE bool is_loader() { return thread_index() >= tile_threads; }

// What the two write to each other.
struct Mail {
  std::int32_t item;
  float scale;  // of float32 weights
  // The largest magnitude that each warp of loaders met, of the left and of the right operand.
  float largest[2][loader_threads / warp_size];
};
static_assert(sizeof(Mail) <= mail_bytes);

ORTHO_DEVICE Mail& mail() {
  return *reinterpret_cast<Mail*>(shared_memory() + tile_shared_bytes + loaded_bytes);
}

namespace barriers {

constexpr int posted = 1, first_free = 2, first_full = first_free + most_stages;
static_assert(first_full + 2 * most_stages <= 16);
ORTHO_DEVICE int free(int stage) { return first_free + stage; }
ORTHO_DEVICE int full(int stage, int group) { return first_full + 2 * stage + group; }
constexpr int of_all = tile_threads + loader_threads, of_group = tile_threads / 2 + loader_threads;

}  // namespace barriers

constexpr std::int32_t no_item = -1;

// Of those that compute, when the chunks of the item before are used up: asks for an item's chunks, of which
// there are some, or sends the loaders home.
ORTHO_DEVICE void post(std::int32_t item, float scale = half_scale) {
  if (thread_index() == 0) {
    mail().item = item;
    mail().scale = scale;
  }
  arrive_at(barriers::posted, barriers::of_all);
}

// Of loaders: calls bring(item, scale) for each item that is posted.
template <class Bring>
ORTHO_DEVICE void serve(const Bring& bring) {
  for (;;) {
    sync_at(barriers::posted, barriers::of_all);
    if (mail().item == no_item) return;
    bring(mail().item, mail().scale);
  }
}

template <class LeftPanel, class RightPanel>
struct LoadedPanels {
  static constexpr int fitting = static_cast<int>(loaded_bytes) / (LeftPanel::bytes + RightPanel::bytes);
  static constexpr int stages = fitting < most_stages ? fitting : most_stages;
  static_assert(stages >= 2);
  static ORTHO_DEVICE typename LeftPanel::Entry* left(int stage) {
    return reinterpret_cast<typename LeftPanel::Entry*>(memory() + stage * LeftPanel::bytes);
  }
  static ORTHO_DEVICE typename RightPanel::Entry* right(int stage) {
    return reinterpret_cast<typename RightPanel::Entry*>(memory() + stages * LeftPanel::bytes +
                                                         stage * RightPanel::bytes);
  }

 private:
  static ORTHO_DEVICE unsigned char* memory() { return shared_memory() + tile_shared_bytes; }
};

// Of loaders: brings `chunks` chunks. `same`: both operands are the same vectors, and the left panel serves
// for both. Numbers come to registers one chunk before they are written.
template <class Left, class Right>
ORTHO_DEVICE void bring_chunks(Left& left, Right& right, int chunks, bool same) {
  using Panels = LoadedPanels<typename Left::Panel, typename Right::Panel>;
  constexpr int stages = Panels::stages;
  // A chunk is there when its copies are: so many chunks after they began.
  constexpr int lag = Left::is_copied || Right::is_copied ? 1 : 0;
  typename Left::Staged staged_left;
  typename Right::Staged staged_right;
  if constexpr (Left::through_registers) left.fetch(staged_left, nullptr);
  if constexpr (Right::through_registers) {
    if (!same) right.fetch(staged_right, nullptr);
  }
  ORTHO_UNROLL_BY(1)
  for (int chunk = 0; chunk < chunks + lag; ++chunk) {
    const int stage = chunk % stages;
    if (chunk < chunks) {
      if (chunk >= stages) sync_at(barriers::free(stage), barriers::of_all);
      if constexpr (!Left::through_registers) left.fetch(staged_left, Panels::left(stage));
      if constexpr (!Right::through_registers) {
        if (!same) right.fetch(staged_right, Panels::right(stage));
      }
    }
    if constexpr (lag > 0) commit_copies();
    if (chunk < chunks) {
      if constexpr (Left::through_registers) left.write_and_fetch(staged_left, Panels::left(stage));
      if constexpr (Right::through_registers) {
        if (!same) right.write_and_fetch(staged_right, Panels::right(stage));
      }
    }
    const int there = chunk - lag;
    if (there < 0) continue;
    if constexpr (lag > 0) await_copies<lag>();
    if (there == chunks - 1) {
      const int lane = thread_index() % warp_size, warp = (thread_index() - tile_threads) / warp_size;
      const float of_left = largest_of_warp(left.largest_met()),
                  of_right = largest_of_warp(right.largest_met());
      if (lane < 2) mail().largest[lane][warp] = lane == 0 ? of_left : of_right;
    }
    show_to_tensor_cores();
    arrive_at(barriers::full(there % stages, 0), barriers::of_group);
    arrive_at(barriers::full(there % stages, 1), barriers::of_group);
  }
}

// Of those that compute: the largest magnitude that the loaders met.
ORTHO_DEVICE float largest_loaded(int operand) {
  float largest = 0;
  ORTHO_UNROLL
  for (const float other : mail().largest[operand]) largest = larger_magnitude(largest, other);
  return largest;
}

#else

template <class C>
constexpr bool has_loaders = false;
constexpr std::int32_t no_item = -1;
ORTHO_DEVICE void post(std::int32_t, float = half_scale) {}

#endif

// Of those that compute in C: the items that no other block has taken, in order. Where there are loaders,
// they are asked for the chunks of the next item, if loads(item), when the one before needs them no more.
template <class C, class Loads>
class TakenItems {
 public:
  ORTHO_DEVICE TakenItems(std::uint32_t* taken, std::int32_t count, const Loads& loads)
      : taken_(taken), count_(count), loads_(loads) {
    if (has_loaders<C>) take();
  }

  // Goes on to the next item; returns whether there is one.
  ORTHO_DEVICE bool begin() {
    if (!has_loaders<C>) take();
    item = next_;
    return item < count_;
  }

  // To be called once in each item, when it needs loaders no more.
  ORTHO_DEVICE void free_loaders() {
    if (has_loaders<C>) take();
  }

  std::int32_t item = 0;

 private:
  ORTHO_DEVICE void take() {
    next_ = next_item(taken_, count_);
    if constexpr (has_loaders<C>) {
      if (next_ >= count_) {
        post(no_item);
      } else if (loads_(next_)) {
        post(next_);
      }
    }
  }

  std::uint32_t* taken_;
  std::int32_t count_, next_ = 0;
  const Loads& loads_;
};

}  // namespace ortho::cuda
