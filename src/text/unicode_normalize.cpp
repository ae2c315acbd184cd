#include <algorithm>
#include <iterator>

#include "text/unicode.h"
#include "text/unicode_flags.h"

namespace llava::unicode {
namespace {

constexpr char32_t kHangulBase = 0xAC00, kLeadBase = 0x1100, kVowelBase = 0x1161, kFinalBase = 0x11A7;
constexpr char32_t kNumLeads = 19, kNumVowels = 21, kNumFinals = 28,
                   kNumHangul = kNumLeads * kNumVowels * kNumFinals;

bool is_hangul(char32_t c) { return c >= kHangulBase && c < kHangulBase + kNumHangul; }

std::uint8_t combining_class(char32_t c) {
  if ((flags(c) & tables::kCombines) == 0) return 0;
  const auto* it =
      std::lower_bound(std::begin(tables::kCombiningClasses), std::end(tables::kCombiningClasses), c,
                       [](const tables::CombiningClass& row, char32_t code) { return row.code < code; });
  return it != std::end(tables::kCombiningClasses) && it->code == c ? it->value : 0;
}

void append_decomposed(std::u32string& out, char32_t c, bool compatible) {
  if (is_hangul(c)) {
    const char32_t index = c - kHangulBase;
    out.push_back(kLeadBase + index / (kNumVowels * kNumFinals));
    out.push_back(kVowelBase + index % (kNumVowels * kNumFinals) / kNumFinals);
    if (index % kNumFinals != 0) out.push_back(kFinalBase + index % kNumFinals);
    return;
  }
  if ((flags(c) & tables::kDecomposes) == 0) return out.push_back(c);
  const auto* it =
      std::lower_bound(std::begin(tables::kDecompositions), std::end(tables::kDecompositions), c,
                       [](const tables::Decomposition& row, char32_t code) { return row.code < code; });
  const std::uint32_t* begin = tables::kPool + (compatible ? it->compatible : it->canonical);
  out.append(begin, begin + (compatible ? it->compatible_len : it->canonical_len));
}

/// Sorts every run of combining marks by class, keeping the order of equals.
void order_marks(std::u32string& text) {
  for (std::size_t i = 0; i < text.size();) {
    if (combining_class(text[i]) == 0) {
      ++i;
      continue;
    }
    std::size_t end = i + 1;
    while (end < text.size() && combining_class(text[end]) != 0) ++end;
    std::stable_sort(text.begin() + static_cast<std::ptrdiff_t>(i),
                     text.begin() + static_cast<std::ptrdiff_t>(end),
                     [](char32_t a, char32_t b) { return combining_class(a) < combining_class(b); });
    i = end;
  }
}

/// The character that `a` followed by `b` makes, or 0.
char32_t composed(char32_t a, char32_t b) {
  if ((flags(b) & tables::kCombines) == 0) return 0;
  if (a >= kLeadBase && a < kLeadBase + kNumLeads && b >= kVowelBase && b < kVowelBase + kNumVowels)
    return kHangulBase + ((a - kLeadBase) * kNumVowels + (b - kVowelBase)) * kNumFinals;
  if (is_hangul(a) && (a - kHangulBase) % kNumFinals == 0 && b > kFinalBase && b < kFinalBase + kNumFinals)
    return a + (b - kFinalBase);
  const auto* it = std::lower_bound(std::begin(tables::kCompositions), std::end(tables::kCompositions), 0,
                                    [a, b](const tables::Composition& row, int) {
                                      return row.first != a ? row.first < a : row.second < b;
                                    });
  return it != std::end(tables::kCompositions) && it->first == a && it->second == b ? it->result : 0;
}

/// Canonical composition in place (Unicode 3.11, D117).
void compose(std::u32string& text) {
  std::size_t out = 0, starter = 0;
  bool have_starter = false;
  int last_class = -1;  // class of the last mark kept after the starter; -1: none
  for (char32_t c : text) {
    const int mark = combining_class(c);
    if (have_starter && last_class < mark) {
      if (const char32_t joined = composed(text[starter], c); joined != 0) {
        text[starter] = joined;
        continue;
      }
    }
    if (mark == 0) {
      have_starter = true;
      starter = out;
      last_class = -1;
    } else {
      last_class = mark;
    }
    text[out++] = c;
  }
  text.resize(out);
}

bool needs_work(std::string_view text) {
  for (std::size_t pos = 0; pos < text.size();) {
    if (static_cast<unsigned char>(text[pos]) < 0x80) {
      ++pos;
      continue;
    }
    const Step s = step(text, pos);
    if ((flags(s.code) & (tables::kDecomposes | tables::kCombines)) != 0 || is_hangul(s.code)) return true;
    pos += s.len;
  }
  return false;
}

}  // namespace

std::string normalize(std::string_view text, NormalForm form) {
  if (!needs_work(text)) return std::string(text);
  const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  std::u32string out;
  out.reserve(text.size());
  for (char32_t c : to_utf32(text)) append_decomposed(out, c, compatible);
  order_marks(out);
  if (form == NormalForm::kNfc || form == NormalForm::kNfkc) compose(out);
  return to_utf8(out);
}

std::string to_lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (char32_t c : to_utf32(text)) {
    if ((flags(c) & tables::kLowers) == 0) {
      append(out, c);
      continue;
    }
    const auto* it =
        std::lower_bound(std::begin(tables::kLower), std::end(tables::kLower), c,
                         [](const tables::Lower& row, char32_t code) { return row.code < code; });
    for (std::uint8_t i = 0; i < it->len; ++i) append(out, tables::kPool[it->begin + i]);
  }
  return out;
}

}  // namespace llava::unicode
