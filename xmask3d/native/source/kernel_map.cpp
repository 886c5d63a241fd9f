// The pairs (target row, source row) of a kernel map as lists, block by block of target rows and tap by tap.
#include <algorithm>
#include <vector>

#include "vectors.h"

namespace {

// Lists of one block, growing row by row.
class BlockLists {
 public:
  BlockLists(int taps, int block_rows)
      : block_rows_(block_rows), counts_(taps, 0), rows_(size_t(taps) * block_rows), places_(rows_.size()) {}

  // Add what a target row reads; `at(tap)` is a source row or `none`. Without branches, since none can be foreseen.
  template <class At>
  void add(int place, int32_t none, const At& at) {
    for (size_t tap = 0; tap < counts_.size(); ++tap) {
      const int32_t row = at(tap);
      const size_t next = tap * block_rows_ + counts_[tap];
      rows_[next] = row;
      places_[next] = uint16_t(place);
      counts_[tap] += row != none;
    }
  }

  const std::vector<int32_t>& counts() const { return counts_; }

  void clear() { std::fill(counts_.begin(), counts_.end(), 0); }

  template <class Rows, class Places>
  void append_to(Rows& rows, Places& places) const {
    for (size_t tap = 0; tap < counts_.size(); ++tap) {
      const size_t first = tap * block_rows_;
      rows.insert(rows.end(), rows_.begin() + first, rows_.begin() + first + counts_[tap]);
      places.insert(places.end(), places_.begin() + first, places_.begin() + first + counts_[tap]);
    }
  }

 private:
  const int32_t block_rows_;
  std::vector<int32_t> counts_, rows_;
  std::vector<uint16_t> places_;
};

// What one call finds, until the caller has made room for it.
struct Found {
  std::vector<std::vector<int32_t>> rows;
  std::vector<std::vector<uint16_t>> places;
};

// `fill(block, lists)` adds the rows of a block. Writes blocks x K counts.
template <class Fill>
Found* find_pairs(int64_t targets, int taps, int block_rows, int64_t* counts, int threads, const Fill& fill) {
  const int64_t blocks = (targets + block_rows - 1) / block_rows;
  Found* found = new Found{std::vector<std::vector<int32_t>>(blocks), std::vector<std::vector<uint16_t>>(blocks)};
#pragma omp parallel num_threads(threads)
  {
    BlockLists lists(taps, block_rows);
#pragma omp for schedule(dynamic, 1)
    for (int64_t block = 0; block < blocks; ++block) {
      lists.clear();
      fill(block * block_rows, std::min(targets, (block + 1) * block_rows), lists);
      std::copy(lists.counts().begin(), lists.counts().end(), counts + block * taps);
      lists.append_to(found->rows[block], found->places[block]);
    }
  }
  return found;
}

inline int64_t compact(int64_t bits) {  // every third bit
  bits &= 0x1249249249249249;
  bits = (bits | bits >> 2) & 0x10C30C30C30C30C3;
  bits = (bits | bits >> 4) & 0x100F00F00F00F00F;
  bits = (bits | bits >> 8) & 0x1F0000FF0000FF;
  bits = (bits | bits >> 16) & 0x1F00000000FFFF;
  return (bits | bits >> 32) & 0x1FFFFF;
}

inline int64_t spread(int64_t value) {  // the inverse
  value = (value | value << 32) & 0x1F00000000FFFF;
  value = (value | value << 16) & 0x1F0000FF0000FF;
  value = (value | value << 8) & 0x100F00F00F00F00F;
  value = (value | value << 4) & 0x10C30C30C30C30C3;
  return (value | value << 2) & 0x1249249249249249;
}

constexpr int kCubeBits = 9;  // a cube of 8 x 8 x 8 voxels

// The occupied cubes; voxels of a cube have consecutive rows, since keys interleave the bits of x, y and z.
struct Cubes {
  std::vector<int64_t> keys, starts;
  Cubes(const int64_t* voxels, int64_t count) {
    for (int64_t row = 0; row < count; ++row)
      if (const int64_t key = voxels[row] >> kCubeBits; keys.empty() || keys.back() != key) {
        keys.push_back(key);
        starts.push_back(row);
      }
    starts.push_back(count);
  }
};

// Row numbers of a cube's voxels and of those around it up to `radius`, as a dense grid.
class Surroundings {
 public:
  Surroundings(const int64_t* voxels, const Cubes& cubes, int radius, int axis_bits, int32_t none)
      : voxels_(voxels), cubes_(cubes), radius_(radius), side_(8 + 2 * radius), axis_bits_(axis_bits), none_(none),
        grid_(size_t(side_) * side_ * side_) {
    for (int z = -radius; z <= radius; ++z)
      for (int y = -radius; y <= radius; ++y)
        for (int x = -radius; x <= radius; ++x) offsets_.push_back((z * side_ + y) * side_ + x);
  }

  void visit(int64_t cube) {
    std::fill(grid_.begin(), grid_.end(), none_);
    const int64_t morton_bits = 3 * axis_bits_ - kCubeBits, batch = cubes_.keys[cube] >> morton_bits;
    const int64_t place = cubes_.keys[cube] & ((int64_t(1) << morton_bits) - 1);
    const int64_t x = compact(place), y = compact(place >> 1), z = compact(place >> 2);
    for (int dz = -1; dz <= 1; ++dz)
      for (int dy = -1; dy <= 1; ++dy)
        for (int dx = -1; dx <= 1; ++dx) {
          if (std::min({x + dx, y + dy, z + dz}) < 0 || std::max({x + dx, y + dy, z + dz}) >> (axis_bits_ - 3)) continue;
          const int64_t key = batch << morton_bits | spread(x + dx) | spread(y + dy) << 1 | spread(z + dz) << 2;
          const auto at = std::lower_bound(cubes_.keys.begin(), cubes_.keys.end(), key);
          if (at != cubes_.keys.end() && *at == key) insert(at - cubes_.keys.begin(), 8 * dx, 8 * dy, 8 * dz);
        }
  }

  const int32_t* around(int64_t row) const {
    const int64_t key = voxels_[row];
    return &grid_[index(compact(key & 511), compact(key >> 1 & 255), compact(key >> 2 & 127))];
  }

  int offset(size_t tap) const { return offsets_[tap]; }

 private:
  size_t index(int64_t x, int64_t y, int64_t z) const {
    return ((z + radius_) * side_ + y + radius_) * side_ + x + radius_;
  }

  void insert(int64_t cube, int dx, int dy, int dz) {
    const auto inside = [this](int64_t value) { return value >= -radius_ && value < 8 + radius_; };
    for (int64_t row = cubes_.starts[cube]; row < cubes_.starts[cube + 1]; ++row) {
      const int64_t key = voxels_[row];
      const int64_t x = compact(key & 511) + dx, y = compact(key >> 1 & 255) + dy, z = compact(key >> 2 & 127) + dz;
      if (inside(x) && inside(y) && inside(z)) grid_[index(x, y, z)] = int32_t(row);
    }
  }

  const int64_t* voxels_;
  const Cubes& cubes_;
  const int radius_, side_, axis_bits_;
  const int32_t none_;
  std::vector<int32_t> grid_;
  std::vector<int> offsets_;
};

}  // namespace

extern "C" {

// From a T x K table of source rows whose missing entries are `none`.
void* xm_kernel_map_of_table(const int32_t* table, int64_t targets, int taps, int32_t none, int block_rows, int64_t* counts,
                        int threads) {
  return find_pairs(targets, taps, block_rows, counts, threads, [=](int64_t first, int64_t last, BlockLists& lists) {
    for (int64_t row = first; row < last; ++row)
      lists.add(int(row - first), none, [=](size_t tap) { return table[row * taps + tap]; });
  });
}

// Neighbours of every voxel within `radius` (at most 8) along each axis. `voxels`: ascending keys, the batch index
// followed by `axis_bits` (at least 3) interleaved bits of each coordinate.
void* xm_kernel_map_of_neighbours(const int64_t* voxels, int64_t count, int radius, int axis_bits, int block_rows,
                             int64_t* counts, int threads) {
  const Cubes cubes(voxels, count);
  const int side = 2 * radius + 1;
  const int32_t none = -1;
  const auto fill = [&](int64_t first, int64_t last, BlockLists& lists) {
    Surroundings near(voxels, cubes, radius, axis_bits, none);
    int64_t cube = std::upper_bound(cubes.starts.begin(), cubes.starts.end(), first) - cubes.starts.begin() - 1;
    for (int64_t row = first; row < last; ++cube) {
      near.visit(cube);
      for (const int64_t end = std::min(last, cubes.starts[cube + 1]); row < end; ++row) {
        const int32_t* here = near.around(row);
        lists.add(int(row - first), none, [&](size_t tap) { return here[near.offset(tap)]; });
      }
    }
  };
  return find_pairs(count, side * side * side, block_rows, counts, threads, fill);
}

// Copy what was found to its place, `starts` being the sums of the counts, and forget it.
void xm_take_kernel_map(void* handle, int64_t blocks, int taps, const int64_t* starts, int32_t* rows, uint16_t* places,
                   int threads) {
  Found* found = static_cast<Found*>(handle);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t block = 0; block < blocks; ++block) {
    std::copy(found->rows[block].begin(), found->rows[block].end(), rows + starts[block * taps]);
    std::copy(found->places[block].begin(), found->places[block].end(), places + starts[block * taps]);
  }
  delete found;
}

}  // extern "C"
