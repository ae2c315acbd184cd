#include "text/score_merger.h"

#include <queue>

namespace llava {
namespace {

struct Node {
  std::string_view text;
  std::int64_t previous, next;  // -1: none
  bool frozen;
};

struct Candidate {
  float score;
  std::int64_t left, right;
  std::size_t size;
  bool operator<(const Candidate& other) const {  // best on top: highest score, then leftmost
    return score != other.score ? score < other.score : left > other.left;
  }
};

class Merging {
 public:
  Merging(const std::vector<ScoreMerger::Symbol>& symbols, const ScoreMerger::Find& find) : find_(find) {
    nodes_.reserve(symbols.size());
    for (std::size_t i = 0; i < symbols.size(); ++i) {
      const auto index = static_cast<std::int64_t>(i);
      nodes_.push_back(
          {symbols[i].text, index - 1, i + 1 < symbols.size() ? index + 1 : -1, symbols[i].frozen});
    }
    for (std::size_t i = 0; i < symbols.size(); ++i) push(static_cast<std::int64_t>(i));
  }

  void run() {
    while (!queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      Node& left = node(top.left);
      Node& right = node(top.right);
      if (left.text.empty() || right.text.empty() || left.text.size() + right.text.size() != top.size)
        continue;
      left.text = {left.text.data(), top.size};
      right.text = {};
      left.next = right.next;
      if (right.next >= 0) node(right.next).previous = top.left;
      if (left.previous >= 0) push(left.previous);
      push(top.left);
    }
  }

  void result(std::vector<ScoreMerger::Symbol>& out) const {
    out.clear();
    if (nodes_.empty()) return;
    for (std::int64_t i = 0; i >= 0; i = nodes_[static_cast<std::size_t>(i)].next) {
      const Node& n = nodes_[static_cast<std::size_t>(i)];
      out.push_back({n.text, n.frozen});
    }
  }

 private:
  Node& node(std::int64_t i) { return nodes_[static_cast<std::size_t>(i)]; }

  /// Queues the pair that begins at `left`, if its joined text is a piece.
  void push(std::int64_t left) {
    const std::int64_t right = node(left).next;
    if (right < 0 || node(left).frozen || node(right).frozen) return;
    const std::size_t size = node(left).text.size() + node(right).text.size();
    const ScoreMerger::Found found = find_({node(left).text.data(), size});
    if (found.found) queue_.push({found.score, left, right, size});
  }

  const ScoreMerger::Find& find_;
  std::vector<Node> nodes_;
  std::priority_queue<Candidate> queue_;
};

}  // namespace

void ScoreMerger::merge(std::vector<Symbol>& symbols, const Find& find) {
  Merging merging(symbols, find);
  merging.run();
  merging.result(symbols);
}

}  // namespace llava
