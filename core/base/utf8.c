#include "core/base/utf8.h"

#include <string.h>

/* The range of a lead byte's second byte (Unicode 15, table 3-7) excludes overlong forms, surrogates and
 * everything above U+10FFFF; later bytes are 80..BF. */
static int lead(unsigned char c, unsigned char *low, unsigned char *high) {
  *low = 0x80;
  *high = 0xBF;
  if (c < 0x80) return 1;
  if (c >= 0xC2 && c <= 0xDF) return 2;
  if (c >= 0xE0 && c <= 0xEF) {
    if (c == 0xE0) *low = 0xA0;
    if (c == 0xED) *high = 0x9F;
    return 3;
  }
  if (c >= 0xF0 && c <= 0xF4) {
    if (c == 0xF0) *low = 0x90;
    if (c == 0xF4) *high = 0x8F;
    return 4;
  }
  return 0;
}

int utf8_next(const char *text, size_t length, uint32_t *point) {
  const unsigned char *s = (const unsigned char *)text;
  unsigned char low, high;
  int n = lead(s[0], &low, &high);
  if (n == 0) return 0;
  static const unsigned char mask[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
  uint32_t value = s[0] & mask[n];
  for (int i = 1; i < n; i++) {
    if ((size_t)i >= length) return -1;
    if (s[i] < low || s[i] > high) return 0;
    value = value << 6 | (s[i] & 0x3F);
    low = 0x80;
    high = 0xBF;
  }
  *point = value;
  return n;
}

int utf8_put(uint32_t p, char out[4]) {
  unsigned char *o = (unsigned char *)out;
  if (p < 0x80) return o[0] = (unsigned char)p, 1;
  if (p < 0x800) {
    o[0] = (unsigned char)(0xC0 | p >> 6);
    o[1] = (unsigned char)(0x80 | (p & 0x3F));
    return 2;
  }
  if (p < 0x10000) {
    o[0] = (unsigned char)(0xE0 | p >> 12);
    o[1] = (unsigned char)(0x80 | (p >> 6 & 0x3F));
    o[2] = (unsigned char)(0x80 | (p & 0x3F));
    return 3;
  }
  o[0] = (unsigned char)(0xF0 | p >> 18);
  o[1] = (unsigned char)(0x80 | (p >> 12 & 0x3F));
  o[2] = (unsigned char)(0x80 | (p >> 6 & 0x3F));
  o[3] = (unsigned char)(0x80 | (p & 0x3F));
  return 4;
}

bool utf8_valid(const char *text, size_t length, size_t *bad) {
  uint32_t point;
  for (size_t i = 0; i < length;) {
    uint64_t eight;
    if ((unsigned char)text[i] < 0x80) { /* most texts are nothing else */
      i++;
      while (length - i >= sizeof eight && (memcpy(&eight, text + i, sizeof eight), !(eight & 0x8080808080808080u)))
        i += sizeof eight;
      continue;
    }
    int n = utf8_next(text + i, length - i, &point);
    if (n <= 0) {
      if (bad) *bad = i;
      return false;
    }
    i += (size_t)n;
  }
  return true;
}

size_t utf8_complete(const char *text, size_t length) {
  uint32_t point;
  size_t i = 0;
  while (i < length) {
    int n = utf8_next(text + i, length - i, &point);
    if (n < 0) return i;
    i += n > 0 ? (size_t)n : 1;
  }
  return length;
}
