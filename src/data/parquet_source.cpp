#include <arrow/api.h>
#include <arrow/io/file.h>
#include <parquet/arrow/reader.h>
#include <parquet/metadata.h>
#include <parquet/schema.h>

#include <algorithm>
#include <deque>
#include <mutex>

#include "base/error.h"
#include "data/open_source.h"
#include "data/record_index.h"

// Rows of Hugging Face data sets. Columns: "conversations" (list of {from, value}), or "texts" (list of
// {user, assistant}) or "messages" (list of {role, content}); "image" or "images": {bytes, path} or a list
// of them; the others as they are.
namespace llava {

namespace {

constexpr std::size_t kKeptGroups = 4;
constexpr int kMostDepth = 32;

template <class T>
T checked(arrow::Result<T> result, const std::string& where) {
  if (!result.ok()) fail(ErrorKind::kFormat, "{}: {}", where, result.status().message());
  return std::move(result).ValueUnsafe();
}

bool is_image_column(const std::string& name) { return name == "image" || name == "images"; }

Json to_json(const arrow::Array& array, std::int64_t row, int depth = 0);

template <class ListArray>
Json list_to_json(const arrow::Array& array, std::int64_t row, int depth) {
  const auto& list = static_cast<const ListArray&>(array);
  Json items = Json::array();
  for (std::int64_t i = 0; i < list.value_length(row); ++i)
    items.push_back(to_json(*list.values(), list.value_offset(row) + i, depth + 1));
  return items;
}

/// A value; bytes and types that no record needs become null.
Json to_json(const arrow::Array& array, std::int64_t row, int depth) {
  if (depth > kMostDepth || array.IsNull(row)) return nullptr;
  switch (array.type_id()) {
    case arrow::Type::STRING:
      return static_cast<const arrow::StringArray&>(array).GetString(row);
    case arrow::Type::LARGE_STRING:
      return static_cast<const arrow::LargeStringArray&>(array).GetString(row);
    case arrow::Type::BOOL:
      return static_cast<const arrow::BooleanArray&>(array).Value(row);
    case arrow::Type::INT32:
      return static_cast<const arrow::Int32Array&>(array).Value(row);
    case arrow::Type::INT64:
      return static_cast<const arrow::Int64Array&>(array).Value(row);
    case arrow::Type::DOUBLE:
      return static_cast<const arrow::DoubleArray&>(array).Value(row);
    case arrow::Type::LIST:
      return list_to_json<arrow::ListArray>(array, row, depth);
    case arrow::Type::LARGE_LIST:
      return list_to_json<arrow::LargeListArray>(array, row, depth);
    case arrow::Type::STRUCT: {
      const auto& fields = static_cast<const arrow::StructArray&>(array);
      Json object = Json::object();
      for (int f = 0; f < fields.num_fields(); ++f)
        object[fields.type()->field(f)->name()] = to_json(*fields.field(f), row, depth + 1);
      return object;
    }
    default:
      return nullptr;
  }
}

/// Bytes of a binary cell; null where there are none.
std::shared_ptr<const std::string> bytes_of(const arrow::Array& array, std::int64_t row) {
  if (array.IsNull(row)) return nullptr;
  if (array.type_id() == arrow::Type::BINARY)
    return std::make_shared<std::string>(static_cast<const arrow::BinaryArray&>(array).GetString(row));
  if (array.type_id() == arrow::Type::LARGE_BINARY)
    return std::make_shared<std::string>(static_cast<const arrow::LargeBinaryArray&>(array).GetString(row));
  return nullptr;
}

/// The images of a cell: {bytes, path}, a list of them, bytes alone, or names of files.
void collect_images(const arrow::Array& array, std::int64_t row, RawRecord& record, Json& names,
                    int depth = 0) {
  if (depth > kMostDepth || array.IsNull(row)) return;
  if (array.type_id() == arrow::Type::LIST) {
    const auto& list = static_cast<const arrow::ListArray&>(array);
    for (std::int64_t i = 0; i < list.value_length(row); ++i)
      collect_images(*list.values(), list.value_offset(row) + i, record, names, depth + 1);
    return;
  }
  std::shared_ptr<const std::string> bytes = bytes_of(array, row);
  Json name;
  if (array.type_id() == arrow::Type::STRUCT) {
    const auto& fields = static_cast<const arrow::StructArray&>(array);
    if (const auto field = fields.GetFieldByName("bytes")) bytes = bytes_of(*field, row);
    if (const auto field = fields.GetFieldByName("path")) name = to_json(*field, row);
  } else if (!bytes) {
    name = to_json(array, row);
  }
  if (!bytes && !name.is_string()) fail(ErrorKind::kInput, "an image without bytes and without a path");
  if (bytes) {
    MediaRef image;
    image.bytes = std::move(bytes);
    image.name = name.is_string() ? name.get<std::string>() : fmt::format("image {}", record.images.size());
    record.images.push_back(std::move(image));
  }
  names.push_back(name.is_string() ? name : Json(record.images.empty() ? "" : record.images.back().name));
}

Json turn(const char* from, const Json& value) {
  return {{"from", from}, {"value", value.is_string() ? value : Json("")}};
}

/// Brings "texts" and "messages" to "conversations".
void unify_turns(Json& record, std::size_t images) {
  if (record.contains("conversations") && record["conversations"].is_array()) return;
  Json turns = Json::array();
  if (record.contains("texts") && record["texts"].is_array()) {
    for (const Json& text : record["texts"]) {
      if (!text.is_object()) continue;
      turns.push_back(turn("human", text.value("user", Json())));
      turns.push_back(turn("gpt", text.value("assistant", Json())));
    }
    std::string marks;
    for (std::size_t i = 0; i < images; ++i) marks += "<image>\n";
    if (!turns.empty() &&
        turns[0]["value"].get_ref<const std::string&>().find("<image>") == std::string::npos)
      turns[0]["value"] = marks + turns[0]["value"].get<std::string>();
  } else if (record.contains("messages") && record["messages"].is_array()) {
    for (const Json& message : record["messages"]) {
      if (!message.is_object()) continue;
      const Json role = message.value("role", Json());
      turns.push_back(turn(role == "assistant" ? "gpt"
                           : role == "system"  ? "system"
                                               : "human",
                           message.value("content", Json())));
    }
  } else {
    return;  // loading says that "conversations" is missing
  }
  record["conversations"] = std::move(turns);
}

class ParquetSource : public RecordSource {
 public:
  explicit ParquetSource(std::filesystem::path path) : path_(std::move(path)) {
    guarded(path_.string(), [&] {
      open();
      for (int group = 0; group < reader_->num_row_groups(); ++group) read_facts(group);
    });
    if (facts_.empty()) fail(ErrorKind::kFormat, "{}: no rows", path_.string());
  }
  std::size_t size() const override { return facts_.size(); }
  RecordFacts facts(std::size_t index) const override {
    return {facts_[index] & kMostWords, (facts_[index] & 0x8000) != 0};
  }
  std::string describe(std::size_t index) const override {
    return fmt::format("{}: row {}", path_.string(), index);
  }

  RawRecord load(std::size_t index) const override {
    return guarded(describe(index), [&] {
      const auto after = std::upper_bound(starts_.begin(), starts_.end(), index);
      const auto group = static_cast<std::size_t>(after - starts_.begin() - 1);
      const auto table = group_table(static_cast<int>(group));
      RawRecord record = row(*table, static_cast<std::int64_t>(index - starts_[group]));
      for (MediaRef& image : record.images) {
        image.path = path_;
        image.name = fmt::format("row {}: {}", index, image.name);
      }
      if (!record.json.contains("id")) record.json["id"] = index;
      return record;
    });
  }

 private:
  /// Exceptions of libparquet as our Errors.
  template <class Body>
  static auto guarded(const std::string& where, Body&& body) -> decltype(body()) {
    try {
      return body();
    } catch (const Error&) {
      throw;
    } catch (const std::exception& e) {
      fail(ErrorKind::kFormat, "{}: {}", where, e.what());
    }
  }

  void open() {
    const std::string name = path_.string();
    const auto file = checked(arrow::io::ReadableFile::Open(name), name);
    reader_ = checked(parquet::arrow::OpenFile(file, arrow::default_memory_pool()), name);
    const auto metadata = reader_->parquet_reader()->metadata();
    for (int c = 0; c < metadata->num_columns(); ++c) {
      const std::string root = metadata->schema()->GetColumnRoot(c)->name();
      const std::string leaf = metadata->schema()->Column(c)->name();
      if (root == "conversations" || root == "texts" || root == "messages" ||
          (is_image_column(root) && leaf != "bytes"))
        fact_columns_.push_back(c);
      has_turns_ |= root == "conversations" || root == "texts" || root == "messages";
    }
    if (!has_turns_)
      fail(ErrorKind::kFormat, "{}: no column \"conversations\", \"texts\" or \"messages\"", name);
  }

  void read_facts(int group) {
    const auto table = one_chunk(checked(reader_->ReadRowGroup(group, fact_columns_), path_.string()));
    starts_.push_back(facts_.size());
    for (std::int64_t r = 0; r < table->num_rows(); ++r) {
      Json record = Json::object();
      bool media = false;
      for (int c = 0; c < table->num_columns(); ++c) {
        const std::string& name = table->field(c)->name();
        const Json value = to_json(*table->column(c)->chunk(0), r);
        if (is_image_column(name)) {
          media |= !value.is_null() && !(value.is_array() && value.empty());
        } else {
          record[name] = value;
        }
      }
      unify_turns(record, 0);
      const RecordFacts facts = record_facts(record);
      facts_.push_back(RecordIndex::pack({facts.words, media}));
    }
  }

  static std::shared_ptr<arrow::Table> one_chunk(std::shared_ptr<arrow::Table> table) {
    const bool whole = std::all_of(table->columns().begin(), table->columns().end(),
                                   [](const auto& c) { return c->num_chunks() == 1; });
    return whole || table->num_rows() == 0 ? table : checked(table->CombineChunks(), "parquet");
  }

  /// A row group's columns, of which the last few stay decoded.
  std::shared_ptr<arrow::Table> group_table(int group) const {
    const std::lock_guard lock(mutex_);
    for (const auto& [number, table] : kept_)
      if (number == group) return table;
    auto table = one_chunk(checked(reader_->ReadRowGroup(group), path_.string()));
    kept_.emplace_back(group, table);
    if (kept_.size() > kKeptGroups) kept_.pop_front();
    return table;
  }

  static RawRecord row(const arrow::Table& table, std::int64_t r) {
    RawRecord record;
    record.json = Json::object();
    Json names = Json::array();
    for (int c = 0; c < table.num_columns(); ++c) {
      const std::string& name = table.field(c)->name();
      const arrow::Array& cells = *table.column(c)->chunk(0);
      if (is_image_column(name)) {
        collect_images(cells, r, record, names);
      } else {
        record.json[name] = to_json(cells, r);
      }
    }
    if (!record.images.empty() && record.images.size() != names.size())
      fail(ErrorKind::kInput, "some images are here and some are only named");
    unify_turns(record.json, names.size());
    if (!names.empty()) record.json["image"] = std::move(names);
    return record;
  }

  std::filesystem::path path_;
  std::unique_ptr<parquet::arrow::FileReader> reader_;
  std::vector<int> fact_columns_;
  bool has_turns_ = false;
  std::vector<std::size_t> starts_;  ///< first row of each row group
  std::vector<std::uint16_t> facts_;
  mutable std::mutex mutex_;
  mutable std::deque<std::pair<int, std::shared_ptr<arrow::Table>>> kept_;
};

}  // namespace

std::unique_ptr<RecordSource> open_parquet(const std::filesystem::path& path) {
  return std::make_unique<ParquetSource>(path);
}

}  // namespace llava
