#include "data/validate.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "vision/image.h"

namespace llava {

namespace {

/// Thrown by the steps of check_sample.
struct DefectFound {
  Defect defect;
  std::string why;
};

/// Runs a step; an Error of it is this defect.
template <class Body>
auto step(Defect defect, Body&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kInternal || e.kind() == ErrorKind::kStopped) throw;
    throw DefectFound{defect, e.what()};
  }
}

std::string text_of(const Json& turn) {
  for (const char* key : {"value", "content"})
    if (turn.contains(key) && turn[key].is_string()) return turn[key].get<std::string>();
  throw DefectFound{Defect::kBadRecord, "a turn without text"};
}

std::size_t count_marks(const std::string& text, std::string_view mark) {
  std::size_t count = 0;
  for (std::size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at + mark.size()))
    ++count;
  return count;
}

std::size_t count_named(const Json& record, std::initializer_list<const char*> keys) {
  std::size_t count = 0;
  for (const char* key : keys)
    if (record.contains(key) && !record[key].is_null() && record[key] != "")
      count += record[key].is_array() ? record[key].size() : 1;
  return count;
}

/// Roles, answers and marks of the record's text, before anything is built from it.
void check_turns(const RawRecord& raw, TurnMode mode) {
  const Json& record = raw.json;
  if (!record.contains("conversations") || !record["conversations"].is_array() ||
      record["conversations"].empty())
    throw DefectFound{Defect::kBadRecord, "\"conversations\" is missing or not a list of turns"};
  std::string last;
  std::size_t images = 0, videos = 0;
  bool asked = false;
  for (const Json& turn : record["conversations"]) {
    if (!turn.is_object()) throw DefectFound{Defect::kBadRecord, "a turn that is not an object"};
    const Json who = turn.value("from", turn.value("role", Json("")));
    const std::string from = who.is_string() ? who.get<std::string>() : "";
    const bool human = from == "human" || from == "user", answer = from == "gpt" || from == "assistant";
    if (!human && !answer && from != "system")
      throw DefectFound{Defect::kRoleOrder, fmt::format("a turn from \"{}\"", from.substr(0, 40))};
    if (from == "system" && !last.empty())
      throw DefectFound{Defect::kRoleOrder, "a system turn that is not the first"};
    const std::string text = text_of(turn);
    images += count_marks(text, "<image>"), videos += count_marks(text, "<video>");
    asked |= human;
    if (from == "system" || (answer && !asked)) continue;  // answers before the first question are left out
    const bool alternative = answer && mode == TurnMode::kIndependent;
    if (last == (human ? "human" : "gpt") && !alternative)
      throw DefectFound{Defect::kRoleOrder, fmt::format("two turns of {} in a row", from)};
    last = human ? "human" : "gpt";
    if (answer && text.find_first_not_of(" \t\r\n") == std::string::npos)
      throw DefectFound{Defect::kEmptyAnswer, "an answer without text"};
  }
  if (!asked) throw DefectFound{Defect::kRoleOrder, "no question"};
  if (last != "gpt") throw DefectFound{Defect::kEmptyAnswer, "the last question has no answer"};
  const std::size_t named =
      raw.images.empty() ? count_named(record, {"image", "images"}) : raw.images.size();
  const std::size_t films = count_named(record, {"video", "videos"});
  if (named != images || films != videos)
    throw DefectFound{Defect::kPlaceholderCount,
                fmt::format("{} images and {} videos, but {} <image> and {} <video> marks", named, films,
                            images, videos)};
}

/// An image's plan from its header, or from all of it.
MediaPlan check_image(const SamplePreparer& preparer, const MediaRef& image, std::size_t num_images,
                      bool decode) {
  std::error_code error;
  if (!image.bytes && !std::filesystem::exists(image.path, error))
    throw DefectFound{Defect::kMissingImage, image.path.string() + ": no such file"};
  return step(Defect::kUnreadableImage, [&] {
    if (decode) return prepare_image(image, preparer.policy, preparer.model, num_images).plan;
    return with_context(image.describe(), [&] {
      const ImageSize size =
          probe_media(image, preparer.policy.limits, preparer.policy.apply_exif_orientation);
      return plan_media(size, preparer.policy, preparer.model, num_images);
    });
  });
}

/// Plans of all media; the conversation gets what the text says of its films.
std::vector<MediaPlan> check_media(const SamplePreparer& preparer, Sample& sample, bool decode) {
  std::vector<MediaPlan> plans;
  std::vector<FramePick> films;
  std::size_t next_image = 0;
  for (const Message& message : sample.conversation.messages)
    for (const Part& part : message.parts) {
      if (part.kind == Part::Kind::kImage)
        plans.push_back(
            check_image(preparer, sample.images.at(next_image++), sample.images.size(), decode));
      if (part.kind != Part::Kind::kVideo) continue;
      const std::filesystem::path& path = sample.videos.at(films.size());
      std::error_code error;
      if (!std::filesystem::exists(path, error))
        throw DefectFound{Defect::kMissingImage, path.string() + ": no such film"};
      PreparedFilm film = step(Defect::kUnreadableImage, [&] {
        return decode ? prepare_film(path, preparer.policy, preparer.model, preparer.film)
                      : plan_film(path, preparer.policy, preparer.model, preparer.film);
      });
      films.push_back(std::move(film.frames));
      for (const PreparedMedia& media : film.media) plans.push_back(media.plan);
    }
  for (Conversation* conversation : {&sample.conversation, &sample.rejected})
    if (!films.empty() && !conversation->messages.empty())
      show_films(*conversation, films, preparer.model.media);
  return plans;
}

bool has_labels(const Prompt& prompt) {
  return std::any_of(prompt.labels.begin(), prompt.labels.end(),
                     [](std::int64_t label) { return label != kIgnoreIndex; });
}

/// The prompt as training builds it; where that fails, once more without truncation, to say which of the
/// two it was.
void check_prompt(const SamplePreparer& preparer, const Conversation& conversation,
                  const std::vector<MediaPlan>& plans) {
  const auto build = [&](std::int64_t max_length) {
    PromptOptions options = preparer.prompt;
    options.max_length = max_length;
    return build_prompt(conversation, plans, *preparer.format, *preparer.tokenizer, preparer.model,
                        options);
  };
  const auto usable = [&](const Outcome<Prompt>& prompt) {
    return prompt.ok() && (preparer.kind == RecordKind::kPrompt || has_labels(prompt.value()));
  };
  const std::int64_t limit = preparer.prompt.max_length;
  const auto cut = try_outcome([&] { return build(limit); });
  if (usable(cut)) return;
  const auto whole = try_outcome([&] { return build(0); });
  if (limit > 0 && usable(whole))
    throw DefectFound{Defect::kOverLong,
                fmt::format("{} tokens; cut to {}, no answer or not all of an image is left",
                            whole.value().ids.size(), limit)};
  if (whole.ok() || cut.ok()) throw DefectFound{Defect::kAllMasked, "no token is learned from"};
  const bool masked =
      std::string_view(whole.error().what()).find("nothing to learn") != std::string_view::npos;
  throw DefectFound{masked ? Defect::kAllMasked : Defect::kOther, whole.error().what()};
}

/// Which defect of a preference record an error of its reading is.
Defect preference_defect(std::string_view why) {
  const auto says = [&](std::string_view text) { return why.find(text) != std::string_view::npos; };
  if (says("<image>") || says("<video>")) return Defect::kPlaceholderCount;
  if (says("is empty")) return Defect::kEmptyAnswer;
  if (says("in a row") || says("not a role") || says("end with a question")) return Defect::kRoleOrder;
  return Defect::kBadRecord;
}

Sample read_sample(const SamplePreparer& preparer, std::size_t index, const RawRecord& raw) {
  if (preparer.kind != RecordKind::kInstruction) {
    const auto sample =
        try_outcome([&] { return preparer.dataset->load(index, preparer.turns, preparer.kind); });
    if (!sample.ok()) throw DefectFound{preference_defect(sample.error().what()), sample.error().what()};
    if (preparer.needs_answer && sample.value().answer.empty())
      throw DefectFound{Defect::kEmptyAnswer, "no right answer"};
    return sample.value();
  }
  check_turns(raw, preparer.turns);
  const std::size_t source = preparer.dataset->info(index).source;
  return step(Defect::kBadRecord, [&] {
    return sample_from_record(raw, preparer.dataset->sources()[source].image_root, preparer.turns);
  });
}

}  // namespace

const char* to_string(Defect defect) {
  constexpr const char* kNames[] = {"bad_record",        "role_order",    "empty_answer",
                                    "placeholder_count", "missing_image", "unreadable_image",
                                    "over_long",         "all_masked",    "other"};
  return kNames[static_cast<std::size_t>(defect)];
}

bool check_sample(const SamplePreparer& preparer, std::size_t index, bool decode_images, Defect& defect,
                  std::string& why, std::string& id) {
  try {
    const RawRecord raw = step(Defect::kBadRecord, [&] { return preparer.dataset->load_raw(index); });
    if (raw.json.contains("id"))
      id = raw.json["id"].is_string() ? raw.json["id"].get<std::string>() : raw.json["id"].dump();
    Sample sample = read_sample(preparer, index, raw);
    const std::vector<MediaPlan> plans = check_media(preparer, sample, decode_images);
    check_prompt(preparer, sample.conversation, plans);
    if (!sample.rejected.messages.empty()) check_prompt(preparer, sample.rejected, plans);
    return true;
  } catch (const DefectFound& found) {
    defect = found.defect;
    why = found.why;
    return false;
  }
}

namespace {

constexpr std::size_t kSlice = 256;  // samples that a thread takes at a time

/// Adds one defect to a report, which keeps the first ones by index.
void note(DataReport& report, Defect defect, DefectiveSample sample, std::size_t listed) {
  const auto kind = static_cast<std::size_t>(defect);
  ++report.counts[kind];
  auto& first = report.first[kind];
  const auto at = std::upper_bound(first.begin(), first.end(), sample,
                                   [](const auto& a, const auto& b) { return a.index < b.index; });
  if (first.size() == listed && at == first.end()) return;
  first.insert(at, std::move(sample));
  if (first.size() > listed) first.pop_back();
}

}  // namespace

DataReport validate_data(const SamplePreparer& preparer, const ValidateOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  DataReport report;
  report.samples = preparer.dataset->size();
  std::mutex mutex;
  std::atomic<std::size_t> next = 0, done = 0;
  std::exception_ptr error;
  const auto stopped = [&] { return options.stop != nullptr && *options.stop; };
  const auto work = [&] {
    try {
      for (std::size_t begin = next.fetch_add(kSlice); begin < report.samples && !stopped();
           begin = next.fetch_add(kSlice)) {
        const std::size_t end = std::min(report.samples, begin + kSlice);
        for (std::size_t i = begin; i < end; ++i) {
          Defect defect{};
          std::string why, id;
          if (check_sample(preparer, i, options.decode_images, defect, why, id)) continue;
          const std::lock_guard lock(mutex);
          note(report, defect, {i, id, preparer.dataset->describe(i), why}, options.listed);
        }
        done += end - begin;
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      error = std::current_exception();
      next = report.samples;
      done = report.samples;
    }
  };
  std::vector<std::thread> threads;
  for (std::int64_t t = 0; t < std::max<std::int64_t>(1, options.threads); ++t) threads.emplace_back(work);
  {
    Progress progress("checking data", static_cast<std::int64_t>(report.samples), 0,
                      {.enabled = report.samples > 1000});
    while (done < report.samples && !stopped()) {
      progress.update(static_cast<std::int64_t>(done));
      std::this_thread::sleep_for(std::chrono::milliseconds(report.samples > 1000 ? 50 : 1));
    }
  }
  for (std::thread& thread : threads) thread.join();
  if (error) std::rethrow_exception(error);
  if (stopped()) fail(ErrorKind::kStopped, "stopped while checking the data");
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

std::size_t DataReport::defective() const {
  std::size_t total = 0;
  for (const std::size_t count : counts) total += count;
  return total;
}

OrderedJson DataReport::to_json() const {
  OrderedJson defects = OrderedJson::object();
  for (std::size_t kind = 0; kind < kNumDefects; ++kind) {
    if (counts[kind] == 0) continue;
    OrderedJson list = OrderedJson::array();
    for (const DefectiveSample& sample : first[kind])
      list.push_back(
          {{"index", sample.index}, {"id", sample.id}, {"where", sample.where}, {"why", sample.why}});
    defects[to_string(static_cast<Defect>(kind))] = {{"count", counts[kind]}, {"first", std::move(list)}};
  }
  return {{"samples", samples},
          {"defective", defective()},
          {"seconds", seconds},
          {"defects", std::move(defects)}};
}

std::string DataReport::to_text() const {
  std::string text = fmt::format("data: {} samples checked in {:.1f} s, {} cannot be used\n", samples,
                                 seconds, defective());
  for (std::size_t kind = 0; kind < kNumDefects; ++kind) {
    if (counts[kind] == 0) continue;
    text += fmt::format("  {}: {}\n", to_string(static_cast<Defect>(kind)), counts[kind]);
    for (const DefectiveSample& sample : first[kind])
      text +=
          fmt::format("    {} ({}): {}\n", sample.id.empty() ? "-" : sample.id, sample.where, sample.why);
    if (counts[kind] > first[kind].size())
      text += fmt::format("    … and {} more\n", counts[kind] - first[kind].size());
  }
  return text;
}

}  // namespace llava
