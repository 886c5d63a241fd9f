// Loops over all points of a scan and all pixels of a picture, for training samples. One thread: a loader has many.
#include <cstdint>
#include <vector>

extern "C" {

// Indices of the points (count x 3) whose distance to each of six planes (a, b, c, d) is at least `least`; how many.
int64_t xm_in_frustum(const float* points, int64_t count, const float* planes, float least, int64_t* index) {
  int64_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float x = points[3 * i], y = points[3 * i + 1], z = points[3 * i + 2];
    bool inside = true;
    for (int k = 0; k < 6; ++k) {
      const float* p = planes + 4 * k;
      inside &= p[0] * x + p[1] * y + p[2] * z + p[3] >= least;
    }
    index[found] = i;  // without a branch, which would be guessed wrongly half of the time
    found += inside;
  }
  return found;
}

// Bilinear resizing in whole numbers. Taps are rows of [first, second, weight of the first, weight of the second], one
// row a target column (row); weights are in 1/2048. Every 8-bit result is written as the number `table` has for it.
void xm_resize_bilinear(const uint8_t* image, int64_t plane_step, int64_t row_step, int64_t column_step, int planes,
                        int height, const int32_t* columns, int out_width, const int32_t* rows, int out_height,
                        const float* table, float* out) {
  std::vector<int32_t> lines(int64_t(height) * out_width);
  for (int plane = 0; plane < planes; ++plane) {
    for (int y = 0; y < height; ++y) {
      const uint8_t* line = image + plane * plane_step + y * row_step;
      int32_t* to = lines.data() + int64_t(y) * out_width;
      for (int x = 0; x < out_width; ++x) {
        const int32_t* tap = columns + 4 * x;
        to[x] = (line[tap[0] * column_step] * tap[2] + line[tap[1] * column_step] * tap[3]) >> 4;
      }
    }
    for (int y = 0; y < out_height; ++y, out += out_width) {
      const int32_t* tap = rows + 4 * y;
      const int32_t *above = lines.data() + int64_t(tap[0]) * out_width, *below = lines.data() + int64_t(tap[1]) * out_width;
      for (int x = 0; x < out_width; ++x)
        out[x] = table[uint8_t((((above[x] * tap[2]) >> 16) + ((below[x] * tap[3]) >> 16) + 2) >> 2)];
    }
  }
}

}  // extern "C"
