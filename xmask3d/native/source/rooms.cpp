// What a scanner makes of drawn rooms: its pictures, and its cloud. Sums and products are rounded as NumPy rounds them.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

extern "C" {

// A picture (height x width x 3) blurred by 1-2-1 both ways (beyond the edge lies the edge), times a gain a channel, plus
// grain. Sums of the blur are whole numbers, so their order does not matter.
void xm_sensor_color(const uint8_t* color, int64_t height, int64_t width, const float* gain, const float* grain,
                     float strength, uint8_t* result) {
  const int64_t row = 3 * width;
  std::vector<uint16_t> line(row + 6);
  for (int64_t y = 0; y < height; ++y) {
    const uint8_t* here = color + y * row;
    const uint8_t *above = y ? here - row : here, *below = y + 1 < height ? here + row : here;
    for (int64_t i = 0; i < row; ++i) line[3 + i] = above[i] + 2 * here[i] + below[i];
    for (int c = 0; c < 3; ++c) {
      line[c] = line[3 + c];
      line[row + 3 + c] = line[row + c];
    }
    const float* noise = grain + y * row;
    for (int64_t x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) {
        const int64_t i = 3 * x + c;
        float value = float(line[i] + 2 * line[i + 3] + line[i + 6]) / 16.0f;
        value = value * gain[c] + noise[i] * strength;
        result[y * row + i] = uint8_t(std::min(std::max(value, 0.0f), 255.0f));
      }
    }
  }
}

// Millimetres of a depth camera (xmask3d/rooms/noise.py): `normal` and `chance` are its random numbers a pixel.
void xm_sensor_depth(const float* depth, int64_t height, int64_t width, const float* normal, const float* chance,
                     uint16_t* result) {
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      const int64_t i = y * width + x;
      const float d = depth[i], limit = 0.05f * std::max(d, 0.5f);
      bool jump = false;
      if (x) jump |= std::fabs(d - depth[i - 1]) > limit;
      if (x + 1 < width) jump |= std::fabs(depth[i + 1] - d) > limit;
      if (y) jump |= std::fabs(d - depth[i - width]) > limit;
      if (y + 1 < height) jump |= std::fabs(depth[i + width] - d) > limit;
      const float noisy = d + (0.001f + 0.0014f * (d * d)) * normal[i];
      const float millimetres = std::min(std::max(std::nearbyint(noisy * 1000.0f), 0.0f), 65535.0f);
      const bool lost = (jump && chance[i] < 0.6f) || d < 0.35f || d > 8.0f;
      result[i] = lost ? 0 : uint16_t(millimetres);
    }
  }
}

// Points of the pixels of a picture that hit something; how many. Of `step` rows and columns one is taken; a pixel stands
// for row and column times `factor` of a frame. `pose` is camera to world, row by row; colours are in [0, 1].
int64_t xm_lift(const uint8_t* color, const float* depth, const int32_t* instance, const int32_t* label, int64_t height,
                int64_t width, int64_t step, int64_t factor, const double* intrinsics, const double* pose,
                double* values, int32_t* instances, int32_t* labels) {
  const double fx = intrinsics[0], cx = intrinsics[1], fy = intrinsics[2], cy = intrinsics[3];
  int64_t count = 0;
  for (int64_t y = 0; y < height; y += step) {
    for (int64_t x = 0; x < width; x += step) {
      const int64_t i = y * width + x;
      if (instance[i] < 0) continue;
      const double z = depth[i];
      const double local[3] = {(double(x / step * factor) - cx) / fx * z, (double(y / step * factor) - cy) / fy * z, z};
      double* out = values + 6 * count;
      // Fused, in this order: as a matrix product does it.
      for (int k = 0; k < 3; ++k)
        out[k] = std::fma(local[2], pose[4 * k + 2], std::fma(local[1], pose[4 * k + 1], local[0] * pose[4 * k])) +
                 pose[4 * k + 3];
      for (int k = 0; k < 3; ++k) out[3 + k] = color[3 * i + k] / 255.0;
      instances[count] = instance[i];
      labels[count] = label[i];
      ++count;
    }
  }
  return count;
}

// One point a cell: the mean of the instance with most pixels there (the first of equals). Returns how many; cells come
// in ascending order. values: count x 6, overwritten with the means; labels: count, overwritten.
int64_t xm_fuse(double* values, const int32_t* instances, int32_t* labels, int64_t count, double spacing) {
  if (!count) return 0;
  std::vector<int64_t> cell(3 * count);
  int64_t low[3] = {INT64_MAX, INT64_MAX, INT64_MAX}, high[3] = {INT64_MIN, INT64_MIN, INT64_MIN};
  int64_t most = 0;
  for (int64_t i = 0; i < count; ++i) {
    for (int k = 0; k < 3; ++k) {
      const int64_t at = int64_t(std::floor(values[6 * i + k] / spacing));
      cell[3 * i + k] = at;
      low[k] = std::min(low[k], at);
      high[k] = std::max(high[k], at);
    }
    most = std::max(most, int64_t(instances[i]));
  }
  const int64_t stride = most + 1;
  struct Group {
    int64_t key;
    int64_t count;
    double sum[6];
    int32_t label;
  };
  std::vector<Group> groups;
  int bits = 10;
  while ((int64_t(1) << bits) < 2 * count) ++bits;
  std::vector<int32_t> table(int64_t(1) << bits, -1);
  const uint64_t last = table.size() - 1;
  int64_t before = -1;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t x = cell[3 * i] - low[0], y = cell[3 * i + 1] - low[1], z = cell[3 * i + 2] - low[2];
    const int64_t key = ((x * (high[1] - low[1] + 1) + y) * (high[2] - low[2] + 1) + z) * stride + instances[i];
    if (before < 0 || groups[before].key != key) {
      uint64_t slot = (uint64_t(key) * 0x9E3779B97F4A7C15u) >> (64 - bits);
      while (table[slot] >= 0 && groups[table[slot]].key != key) slot = (slot + 1) & last;
      if (table[slot] < 0) {
        table[slot] = int32_t(groups.size());
        groups.push_back({key, 0, {0, 0, 0, 0, 0, 0}, 0});
      }
      before = table[slot];
    }
    Group& group = groups[before];
    ++group.count;
    for (int k = 0; k < 6; ++k) group.sum[k] += values[6 * i + k];
    group.label = labels[i];
  }
  std::vector<int32_t> order(groups.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = int32_t(i);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return groups[a].key < groups[b].key; });
  int64_t kept = 0;
  for (size_t i = 0; i < order.size();) {
    const Group* best = &groups[order[i]];
    const int64_t owner = best->key / stride;
    for (++i; i < order.size() && groups[order[i]].key / stride == owner; ++i)
      if (groups[order[i]].count > best->count) best = &groups[order[i]];
    for (int k = 0; k < 6; ++k) values[6 * kept + k] = best->sum[k] / double(best->count);
    labels[kept++] = best->label;
  }
  return kept;
}

}  // extern "C"
