#include "data/tar_source.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/path_pattern.h"
#include "base/rng.h"
#include "data/dataset.h"
#include "data/open_source.h"
#include "data/prepare.h"
#include "data/tar_reader.h"
#include "support/errors.h"
#include "support/golden.h"
#include "support/tar.h"

namespace llava {
namespace {

namespace fs = std::filesystem;
using test::tar_member;

std::string record_json(const std::string& marks) {
  return Json{{"conversations",
               {{{"from", "human"}, {"value", marks + "What?"}}, {{"from", "gpt"}, {"value", "A cat."}}}}}
      .dump();
}

fs::path write_tar(const fs::path& path, const std::string& members) {
  std::ofstream(path, std::ios::binary) << members << std::string(1024, '\0');
  return path;
}

using test::error_of;

TEST(TarSource, GroupsFilesOfOneNameToASample) {
  const auto folder = test::scratch_dir("tar");
  const std::string pax = "31 path=long/name/of.the/7.jpg\n";
  const fs::path path = write_tar(
      folder / "a.tar",
      tar_member("0001.jpg", "JPEG1") + tar_member("0001.json", record_json("<image>\n")) +
          tar_member("dir/", "", '5') + tar_member("0002.0.png", "P0") + tar_member("0002.1.PNG", "P1") +
          tar_member("0002.json", record_json("<image><image>")) +
          tar_member("0003.json", record_json("")) + tar_member("0004.txt", "a red bus") +
          tar_member("0004.webp", "W") + tar_member("././@PaxHeader", pax, 'x') +
          tar_member("cut.jpg", "X") + tar_member("7.txt", "seven", '0', "long/name/of.the"));
  const TarSource tar(path);
  ASSERT_EQ(tar.size(), 5u);
  EXPECT_EQ(tar.facts(0), (RecordFacts{4, true}));
  EXPECT_EQ(tar.facts(2), (RecordFacts{3, false}));
  const RawRecord two = tar.load(1);
  ASSERT_EQ(two.images.size(), 2u);
  EXPECT_EQ(read_media(two.images[1], {}), "P1");
  EXPECT_EQ(two.json["id"], "0002");
  const Sample one = sample_from_record(tar.load(0), "", TurnMode::kConversation);
  EXPECT_EQ(read_media(one.images.at(0), {}), "JPEG1");
  EXPECT_EQ(one.images[0].describe(), path.string() + ": 0001.jpg");
  EXPECT_EQ(sample_from_record(tar.load(3), "", TurnMode::kConversation).conversation.messages[1].text(),
            "a red bus");
  EXPECT_EQ(tar.load(4).images.at(0).name, "long/name/of.the/7.jpg");
}

TEST(TarSource, NamesWhatIsWrongWithAnArchive) {
  const auto folder = test::scratch_dir("tar_bad");
  const std::string whole =
      tar_member("1.jpg", std::string(2000, 'x')) + tar_member("1.json", record_json("<image>"));
  EXPECT_NE(error_of([&] { TarSource(folder / "none.tar"); }).find("none.tar"), std::string::npos);
  EXPECT_NE(error_of([&] { TarSource(write_tar(folder / "empty.tar", "")); }).find("no files"),
            std::string::npos);
  std::ofstream(folder / "cut.tar", std::ios::binary) << whole.substr(0, 1500);
  EXPECT_NE(error_of([&] { TarSource(folder / "cut.tar"); }).find("cut off"), std::string::npos);
  std::ofstream(folder / "text.tar", std::ios::binary) << std::string(5000, 'a');
  EXPECT_NE(error_of([&] { TarSource(folder / "text.tar"); }).find("no tar header at byte 0"),
            std::string::npos);
  const TarSource film(write_tar(folder / "film.tar",
                                 tar_member("1.mp4", "x") + tar_member("1.json", record_json("<video>"))));
  EXPECT_NE(error_of([&] { film.load(0); }).find("film within"), std::string::npos);
  const TarSource alone(write_tar(folder / "alone.tar", tar_member("1.jpg", "x")));
  EXPECT_NE(error_of([&] { alone.load(0); }).find("neither .json nor .txt"), std::string::npos);
}

TEST(TarSource, SurvivesDamageAnywhere) {
  const auto folder = test::scratch_dir("tar_fuzz");
  const std::string whole = tar_member("L", "long-name.json", 'L') + tar_member("x", record_json("")) +
                            tar_member("p", "20 size=99999999999\n", 'x') + tar_member("a.jpg", "J") +
                            std::string(1024, '\0');
  Rng rng(1);
  for (int trial = 0; trial < 300; ++trial) {
    std::string damaged = whole;
    for (int i = 0; i < 3; ++i) damaged[rng.below(damaged.size())] = static_cast<char>(rng.below(256));
    if (trial % 3 == 0) damaged.resize(rng.below(damaged.size()));
    std::ofstream(folder / "d.tar", std::ios::binary) << damaged;
    error_of([&] {
      const TarSource tar(folder / "d.tar");
      for (std::size_t i = 0; i < tar.size(); ++i) tar.load(i);
    });
  }
}

TEST(OpenSource, ReadsShardsOfAPatternOneAfterTheOther) {
  const auto folder = test::scratch_dir("shards");
  for (int s = 8; s < 11; ++s)
    write_tar(folder / fmt::format("s-{:03}.tar", s),
              tar_member(fmt::format("{}.txt", s), "word") + tar_member(fmt::format("{}-b.txt", s), "b"));
  const auto range = open_source((folder / "s-{008..010}.tar").string(), "");
  ASSERT_EQ(range->size(), 6u);
  EXPECT_EQ(range->load(4).json["id"], "10");
  EXPECT_EQ(open_source((folder / "s-*.tar").string(), "")->size(), 6u);
  EXPECT_EQ(open_source((folder / "s-0{08,10}.tar").string(), "")->load(2).json["id"], "10");
  EXPECT_THROW(open_source((folder / "s-{008..011}.tar").string(), ""), Error);
  EXPECT_THROW(open_source((folder / "t-*.tar").string(), ""), Error);
  const Dataset data({{(folder / "s-{008..010}.tar").string(), "", 1.0, 5}});
  EXPECT_EQ(data.size(), 5u);
  EXPECT_NE(data.describe(2).find("s-009.tar: sample 0"), std::string::npos);
}

TEST(ExpandPath, CountsWithZerosAndBoundsItself) {
  EXPECT_EQ(expand_path("a{08..11}b"), (std::vector<fs::path>{"a08b", "a09b", "a10b", "a11b"}));
  EXPECT_EQ(expand_path("{a,b}{1..2}"), (std::vector<fs::path>{"a1", "a2", "b1", "b2"}));
  EXPECT_EQ(expand_path("plain.json"), std::vector<fs::path>{"plain.json"});
  EXPECT_EQ(expand_path("{x}"), std::vector<fs::path>{"{x}"});
  EXPECT_EQ(expand_path("open{1..2"), std::vector<fs::path>{"open{1..2"});
  EXPECT_THROW(expand_path("{0..9999999}"), Error);
  EXPECT_THROW(expand_path("{0..99999}{0..99999}"), Error);
}

}  // namespace
}  // namespace llava
