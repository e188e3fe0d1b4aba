#include "emulator.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <stdexcept>

#include "fiber.h"

namespace emulator {
namespace {

constexpr int warp_size = 32;
constexpr std::size_t widest_gift = 64;  // bytes that a lane may hand to a collective
constexpr std::uint64_t lowest_priority = 1;
constexpr int patience = 200'000;  // rounds of waiting loops in which nothing else happens

struct Copy {
  void* target;
  const void* source;
  int bytes;
  bool valid;
  void arrive() const {
    if (valid) {
      std::memcpy(target, source, bytes);
    } else {
      std::memset(target, 0, bytes);
    }
  }
};

enum class Waits { no, at_barrier, at_collective, ended };

struct Thread {
  Fiber fiber;
  Waits waits = Waits::no;
  int line = 0, barrier = -1;  // at which it waits
  bool released = false;       // by a fence behind the last barrier
  bool acquired = true;        // by a fence behind the last counter
  std::vector<Copy> uncommitted;
  std::deque<std::vector<Copy>> groups;
  bool shows = false, shown = false;  // to tensor cores: since the last barrier, and before it
  bool begun = false, committed = true;
  std::vector<std::function<void()>> products;  // that have not run
};

struct Warp {
  std::uint32_t runnable = 0;  // lanes
  std::uint32_t patient = 0;   // those that let others run first
  std::uint32_t arrived = 0, mask = 0;
  std::size_t bytes = 0;
  int collectives = 0;         // that are complete
  std::uint64_t priority = 0;  // in a random schedule
  alignas(16) unsigned char gifts[2][warp_size * widest_gift];
};

struct Barrier {
  int threads = 0;  // that it waits for
  int came = 0, waiting = 0;
  int line = 0;       // of those that wait
  bool shown = true;  // to tensor cores, by all that only arrived
  std::uint32_t complete = 0;
  char orders[2] = {};  // for a race detector: this time's and the next one's
};

struct Block {
  int index = 0;
  int running = 0;  // threads that haven't ended
  Barrier barriers[16];
  std::unique_ptr<unsigned char[]> shared;
  std::vector<Warp> warps;
  std::vector<Thread> threads;
};

// The grid that runs, and who of it.
struct Grid {
  const Launch* launch = nullptr;
  const std::function<void()>* kernel = nullptr;
  std::vector<Block> blocks;  // those that are resident
  int next_block = 0, blocks_left = 0;
  int block = 0, warp = 0, lane = 0;
  int idle_rounds = 0;
  std::string fault;
  std::uint64_t random = 1;
  char launched = 0, ended = 0;  // for a race detector: the orders of blocks and of what runs them

  Block& own_block() { return blocks[block]; }
  Warp& own_warp() { return own_block().warps[warp]; }
  Thread& own_thread() { return own_block().threads[warp * warp_size + lane]; }
};
Grid grid;

std::uint64_t random_number() {  // xorshift
  grid.random ^= grid.random << 13;
  grid.random ^= grid.random >> 7;
  grid.random ^= grid.random << 17;
  return grid.random;
}

void stop_with(const std::string& fault) {
  if (grid.fault.empty()) {
    grid.fault = grid.launch->kernel + ", block " + std::to_string(block_index()) + ", thread " +
                 std::to_string(thread_index()) + ": " + fault;
  }
  for (;;) grid.own_thread().fiber.leave(false);
}

void wait_as(Waits what) {
  grid.own_thread().waits = what;
  grid.own_warp().runnable &= ~(1u << grid.lane);
  grid.own_thread().fiber.leave(what == Waits::ended);
}

void wake(Warp& warp, Thread* threads, std::uint32_t lanes) {
  for (int lane = 0; lane < warp_size; ++lane) {
    if (lanes >> lane & 1) threads[lane].waits = Waits::no;
  }
  warp.runnable |= lanes;
  grid.idle_rounds = 0;
}

void thread_main(void*) {
  Fiber::arrived();
  races::acquire(&grid.launched);
  (*grid.kernel)();
  if (!grid.own_thread().products.empty()) stop_with("ends before products that nobody awaits");
  races::release(&grid.ended);
  --grid.own_block().running;
  grid.idle_rounds = 0;
  wait_as(Waits::ended);
}

void start_block(Block& block) {
  races::acquire(&grid.ended);
  const int threads = grid.launch->threads;
  const bool backwards =
      settings().schedule == Schedule::reverse || settings().schedule == Schedule::last_warp_first;
  block.index = backwards ? grid.launch->blocks - 1 - grid.next_block : grid.next_block;
  ++grid.next_block;
  block.running = threads;
  for (Barrier& barrier : block.barriers) barrier = Barrier{};
  block.shared.reset(new unsigned char[grid.launch->shared_bytes]);
  std::memset(block.shared.get(), 0xff, grid.launch->shared_bytes);  // NaN in every format
  block.warps.assign(threads / warp_size, Warp{});
  for (Warp& warp : block.warps) warp.runnable = ~0u;
  if (block.threads.empty()) block.threads = std::vector<Thread>(threads);
  for (Thread& thread : block.threads) {
    thread.waits = Waits::no;
    thread.barrier = -1;
    thread.released = false;
    thread.acquired = true;
    thread.uncommitted.clear();
    thread.groups.clear();
    thread.shows = thread.shown = thread.begun = false;
    thread.committed = true;
    thread.products.clear();
    thread.fiber.prepare(thread_main, nullptr);
  }
  races::release(&grid.launched);
}

// A lane of `lanes` for the schedule; `after` restricts the choice to lanes behind the one that ran, -1:
// none.
int pick_lane(std::uint32_t lanes, Schedule schedule) {
  if (schedule == Schedule::reverse || schedule == Schedule::last_warp_first)
    return 31 - __builtin_clz(lanes);
  if (schedule == Schedule::random) {
    for (;;) {
      const int lane = static_cast<int>(random_number() % warp_size);
      if (lanes >> lane & 1) return lane;
    }
  }
  return __builtin_ctz(lanes);
}

// In a random schedule the warp of the highest priority runs for as long as it can; now and then priorities
// change. That lets some warps of a block get far ahead of the others (Burckhardt et al., ASPLOS 2010).
bool choose_by_priority() {
  constexpr std::uint64_t steps_between_changes = 5000;
  const Warp* chosen = nullptr;
  for (std::size_t b = 0; b < grid.blocks.size(); ++b) {
    for (std::size_t w = 0; w < grid.blocks[b].warps.size(); ++w) {
      Warp& warp = grid.blocks[b].warps[w];
      if ((warp.runnable & ~warp.patient) == 0) continue;
      if (warp.priority == 0 || random_number() % steps_between_changes == 0) warp.priority = random_number();
      if (chosen && chosen->priority > warp.priority) continue;
      chosen = &warp;
      grid.block = static_cast<int>(b);
      grid.warp = static_cast<int>(w);
    }
  }
  if (chosen) grid.lane = pick_lane(chosen->runnable & ~chosen->patient, Schedule::random);
  return chosen != nullptr;
}

// Chooses who runs next; false if nobody can. Those that let others run first come last.
bool choose(bool patient_too) {
  // Those that wait for others take turns, whatever the schedule.
  const Schedule schedule = patient_too ? Schedule::forward : settings().schedule;
  if (schedule == Schedule::random) return choose_by_priority();
  const int warps = grid.launch->threads / warp_size;
  const int count = static_cast<int>(grid.blocks.size()) * warps;
  const bool downwards = schedule == Schedule::reverse || schedule == Schedule::last_warp_first;
  int start = grid.block * warps + grid.warp;  // forward and reverse go round
  if (schedule == Schedule::first_warp_first) start = 0;
  if (schedule == Schedule::last_warp_first) start = count - 1;
  for (int i = 0; i <= count; ++i) {
    const int at = ((downwards ? start - i : start + i) % count + count) % count;
    const Warp& warp = grid.blocks[at / warps].warps[at % warps];
    std::uint32_t lanes = patient_too ? warp.runnable : warp.runnable & ~warp.patient;
    // Going round, the warp that ran goes on only behind the lane that ran, and once more when all have had a
    // turn.
    if (i == 0 && schedule == Schedule::forward) lanes &= grid.lane == 31 ? 0u : ~0u << (grid.lane + 1);
    if (i == 0 && schedule == Schedule::reverse) lanes &= (1u << grid.lane) - 1;
    if (lanes == 0) continue;
    grid.block = at / warps;
    grid.warp = at % warps;
    grid.lane = pick_lane(lanes, schedule);
    return true;
  }
  return false;
}

// Counts one that came to a barrier; the last lets all go on. Returns whether it was.
bool come(int number, int threads) {
  Block& block = grid.own_block();
  Barrier& barrier = block.barriers[number];
  if (barrier.came == 0) barrier.threads = threads;
  if (barrier.threads != threads || threads % warp_size != 0)
    stop_with("threads expect different numbers at a barrier, or no whole warps");
  if (++barrier.came < threads) return false;
  if (barrier.waiting == 0) stop_with("a barrier at which nobody waits");
  for (int t = 0; t < static_cast<int>(block.threads.size()); ++t) {
    Thread& thread = block.threads[t];
    if (thread.barrier != number) continue;
    thread.barrier = -1;
    if (barrier.waiting < threads) thread.shown = barrier.shown;
    wake(block.warps[t / warp_size], &block.threads[t / warp_size * warp_size], 1u << t % warp_size);
  }
  barrier.came = barrier.waiting = 0;
  barrier.shown = true;
  ++barrier.complete;
  return true;
}

std::string who_waits() {
  std::string text;
  for (const Block& block : grid.blocks) {
    if (block.running == 0) continue;
    text += "\n  block " + std::to_string(block.index) + ":";
    for (std::size_t t = 0; t < block.threads.size(); ++t) {
      const Thread& thread = block.threads[t];
      if (t > 0 && block.threads[t - 1].waits == thread.waits && block.threads[t - 1].line == thread.line)
        continue;
      text += " from thread " + std::to_string(t);
      text += thread.waits == Waits::ended        ? " ended"
              : thread.waits == Waits::at_barrier ? " at the barrier of line " + std::to_string(thread.line)
                                                  : " in a collective of a warp";
      text += ",";
    }
  }
  return text;
}

void schedule_all() {
  while (grid.blocks_left > 0 && grid.fault.empty()) {
    if (!choose(false)) {
      if (!choose(true)) throw std::runtime_error(grid.launch->kernel + ": divergent:" + who_waits());
      if (++grid.idle_rounds > patience)
        throw std::runtime_error(grid.launch->kernel + ": waits for ever:" + who_waits());
    }
    grid.own_warp().patient &= ~(1u << grid.lane);
    grid.own_thread().fiber.enter();
    Block& block = grid.own_block();
    if (block.running == 0 && block.threads[0].waits == Waits::ended) {
      block.threads[0].waits = Waits::no;  // counted once
      for (const Barrier& barrier : block.barriers) {
        if (barrier.came > 0)
          throw std::runtime_error(grid.launch->kernel + ": ends with threads at a barrier");
      }
      --grid.blocks_left;
      if (grid.next_block < grid.launch->blocks) start_block(block);
    }
  }
  if (!grid.fault.empty()) throw std::runtime_error(grid.fault);
}

}  // namespace

Settings& settings() {
  static Settings all;
  return all;
}

int& chosen_fault() {
  static int number = -1;
  return number;
}

std::vector<Launch>& launch_log() {
  static std::vector<Launch> log;
  return log;
}

void run(const Launch& launch, const std::function<void()>& kernel) {
  launch_log().push_back(launch);
  launch_log().back().counts.assign(std::max(launch.blocks, 0), 0);
  if (launch.blocks < 1 || launch.threads < 1 || launch.threads % warp_size != 0)
    throw std::runtime_error(launch.kernel + ": a grid of no blocks, or of threads that are no whole warps");
  const int resident =
      launch.cooperative ? launch.blocks : std::min(launch.blocks, settings().resident_blocks);
  grid = Grid{};
  grid.launch = &launch;
  grid.kernel = &kernel;
  grid.random = settings().seed * 0x9e3779b97f4a7c15ull + 1;
  grid.blocks_left = launch.blocks;
  grid.blocks = std::vector<Block>(resident);
  for (Block& block : grid.blocks) start_block(block);
  schedule_all();
  races::acquire(&grid.ended);
}

int thread_index() { return grid.warp * warp_size + grid.lane; }
int block_index() { return grid.own_block().index; }
int block_count() { return grid.launch->blocks; }
unsigned char* shared_memory() { return grid.own_block().shared.get(); }

void block_barrier(int line) { barrier(0, static_cast<int>(grid.own_block().threads.size()), line); }

void barrier(int number, int threads, int line) {
  Barrier& own_barrier = grid.own_block().barriers[number];
  Thread& own = grid.own_thread();
  if (!own.acquired) stop_with("no fence between a counter and the barrier of line " + std::to_string(line));
  if (own_barrier.waiting > 0 && own_barrier.line != line) {
    stop_with("barriers of lines " + std::to_string(own_barrier.line) + " and " + std::to_string(line) +
              " meet: divergent");
  }
  own.released = false;
  own.shown = own.shows;
  own.shows = false;
  own.line = own_barrier.line = line;
  own.barrier = number;
  ++own_barrier.waiting;
  char* const order = &own_barrier.orders[own_barrier.complete % 2];
  races::release(order);
  if (come(number, threads)) {
    own.fiber.leave(false);
  } else {
    wait_as(Waits::at_barrier);
  }
  races::acquire(order);
}

void arrive(int number, int threads) {
  Barrier& own_barrier = grid.own_block().barriers[number];
  Thread& own = grid.own_thread();
  if (!own.acquired) stop_with("no fence between a counter and a barrier");
  own_barrier.shown = own_barrier.shown && own.shows;
  races::release(&own_barrier.orders[own_barrier.complete % 2]);
  come(number, threads);
}

void let_others_run() {
  grid.own_warp().patient |= 1u << grid.lane;
  grid.own_thread().fiber.leave(false);
}

void memory_fence() { grid.own_thread().released = grid.own_thread().acquired = true; }

std::uint32_t count_up(std::uint32_t* counter) {
  if (!grid.own_thread().released) stop_with("no fence between the last barrier and a counter");
  ++launch_log().back().counts[block_index()];
  races::release(counter);
  const std::uint32_t before = read_counter(counter);
  *counter = before + 1;
  // Other blocks may act on that at once, before the rest of this block goes on.
  for (Warp& warp : grid.own_block().warps) warp.priority = lowest_priority;
  return before;
}

std::uint32_t read_counter(const std::uint32_t* counter) {
  grid.own_thread().acquired = false;
  races::acquire(const_cast<std::uint32_t*>(counter));
  return *counter;
}

const unsigned char* gather(std::uint32_t mask, const void* mine, std::size_t bytes) {
  Warp& warp = grid.own_warp();
  const std::uint32_t own = 1u << grid.lane;
  if (!(mask & own)) stop_with("a lane calls a collective whose mask leaves it out");
  if (bytes > widest_gift) stop_with("a collective of too many bytes");
  if (warp.arrived == 0) {
    warp.mask = mask;
    warp.bytes = bytes;
  } else if (warp.mask != mask || warp.bytes != bytes) {
    stop_with("lanes of one warp are in different collectives: divergent");
  }
  unsigned char* gifts = warp.gifts[warp.collectives % 2];
  std::memcpy(gifts + grid.lane * bytes, mine, bytes);
  warp.arrived |= own;
  if (warp.arrived != mask) {
    wait_as(Waits::at_collective);
    return gifts;
  }
  warp.arrived = 0;
  ++warp.collectives;
  wake(warp, &grid.own_block().threads[grid.warp * warp_size], mask);
  return gifts;
}

void check_block_row(const void* row) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) stop_with("a row of a block is not aligned");
}

void copy_async(void* target, const void* source, int bytes, bool valid) {
  const auto lies_at = [&](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % bytes == 0; };
  if (bytes != 4 && bytes != 8 && bytes != 16) stop_with("asynchronous copies are of 4, 8 or 16 bytes");
  if (!lies_at(target) || !lies_at(source)) stop_with("an asynchronous copy is not aligned");
  const Copy copy{target, source, bytes, valid};
  if (settings().copies_arrive_late) {
    grid.own_thread().uncommitted.push_back(copy);
  } else {
    copy.arrive();
  }
}

void commit_copies() {
  Thread& thread = grid.own_thread();
  thread.groups.push_back(std::move(thread.uncommitted));
  thread.uncommitted.clear();
}

void await_copies(int groups_that_may_be_missing) {
  auto& groups = grid.own_thread().groups;
  while (static_cast<int>(groups.size()) > groups_that_may_be_missing) {
    for (const Copy& copy : groups.front()) copy.arrive();
    groups.pop_front();
  }
}

void show_to_tensor_cores() { grid.own_thread().shows = true; }

void check_panels(const void* left, const void* right) {
  const void* const panels[] = {left, right};
  const auto* const first_lane = reinterpret_cast<const void* const*>(gather(~0u, panels, sizeof(panels)));
  if (first_lane[0] != left || first_lane[1] != right)
    stop_with("lanes of one warp multiply different panels");
  for (const void* panel : panels) {
    if (reinterpret_cast<std::uintptr_t>(panel) % 16 != 0) stop_with("a panel is not aligned");
  }
}

void begin_products() { grid.own_thread().begun = true; }

void begin_product(std::function<void()> product) {
  Thread& thread = grid.own_thread();
  if (!thread.shown) stop_with("panels were not shown to the tensor cores before the last barrier");
  if (!thread.begun) stop_with("a product without begin_products()");
  thread.committed = false;
  thread.products.push_back(std::move(product));
  if (!settings().copies_arrive_late) {
    thread.products.back()();
    thread.products.pop_back();
  }
}

void commit_products() { grid.own_thread().committed = true; }

void await_products() {
  Thread& thread = grid.own_thread();
  if (!thread.committed) stop_with("products are awaited that were not committed");
  thread.begun = false;
  for (const auto& product : thread.products) product();
  thread.products.clear();
}

}  // namespace emulator
