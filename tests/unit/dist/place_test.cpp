#include "dist/place.h"

#include <gtest/gtest.h>

#include <map>

#include "base/error.h"

namespace llava {
namespace {

Environment with(std::map<std::string, std::string> values) {
  return [values = std::move(values)](const char* name) -> std::optional<std::string> {
    const auto it = values.find(name);
    return it == values.end() ? std::nullopt : std::optional(it->second);
  };
}

TEST(Place, NothingSetIsOneProcess) {
  EXPECT_FALSE(find_place(with({})).several());
  EXPECT_FALSE(find_place(with({{"RANK", "0"}, {"WORLD_SIZE", "1"}})).several());
  EXPECT_TRUE(find_place(with({{"RANK", "0"}, {"WORLD_SIZE", "1"}})).joins());
  EXPECT_FALSE(find_place(with({{"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}})).joins());
}

TEST(Place, TorchrunsVariables) {
  const Place place = find_place(with({{"RANK", "5"},
                                       {"WORLD_SIZE", "8"},
                                       {"LOCAL_RANK", "1"},
                                       {"LOCAL_WORLD_SIZE", "4"},
                                       {"MASTER_ADDR", "head"},
                                       {"MASTER_PORT", "1234"},
                                       {"TORCHELASTIC_RESTART_COUNT", "2"},
                                       {"TORCHELASTIC_USE_AGENT_STORE", "True"}}));
  EXPECT_EQ(place.launcher, "torchrun");
  EXPECT_EQ(place.rank, 5);
  EXPECT_EQ(place.size, 8);
  EXPECT_EQ(place.local_rank, 1);
  EXPECT_EQ(place.local_size, 4);
  EXPECT_EQ(place.master_host, "head");
  EXPECT_EQ(place.master_port, 1234);
  EXPECT_EQ(place.session, "2");
  EXPECT_TRUE(place.store_runs);
}

TEST(Place, SlurmsStepNamesTheFirstNodeAsMaster) {
  const Place place = find_place(with({{"SLURM_PROCID", "3"},
                                       {"SLURM_NTASKS", "4"},
                                       {"SLURM_STEP_NUM_TASKS", "4"},
                                       {"SLURM_LOCALID", "1"},
                                       {"SLURM_STEP_TASKS_PER_NODE", "2(x2)"},
                                       {"SLURM_STEP_NODELIST", "gpu[07-08]"}}));
  EXPECT_EQ(place.launcher, "Slurm");
  EXPECT_EQ(place.rank, 3);
  EXPECT_EQ(place.local_size, 2);
  EXPECT_EQ(place.master_host, "gpu07");
}

TEST(Place, ABatchScriptWithoutSrunIsOneProcess) {
  EXPECT_FALSE(find_place(with({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}})).several());
}

TEST(Place, MpiOnOneMachineNeedsNoMaster) {
  const Place place = find_place(with({{"OMPI_COMM_WORLD_RANK", "1"},
                                       {"OMPI_COMM_WORLD_SIZE", "2"},
                                       {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                                       {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}}));
  EXPECT_EQ(place.launcher, "Open MPI");
  EXPECT_EQ(place.master_host, "127.0.0.1");
  EXPECT_EQ(find_place(with({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MASTER_ADDR", "a"}})).launcher, "PMI");
}

TEST(Place, WhatCannotBeIsRefusedByName) {
  const auto refused = [](std::map<std::string, std::string> values, const std::string& word) {
    try {
      find_place(with(std::move(values)));
      ADD_FAILURE() << word;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kUsage);
      EXPECT_NE(std::string(e.what()).find(word), std::string::npos) << e.what();
    }
  };
  refused({{"RANK", "0"}}, "WORLD_SIZE");
  refused({{"RANK", "2"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}}, "RANK=2");
  refused({{"RANK", "-1"}, {"WORLD_SIZE", "2"}}, "RANK=\"-1\"");
  refused({{"RANK", "0"}, {"WORLD_SIZE", "two"}}, "two");
  refused({{"RANK", "0"}, {"WORLD_SIZE", "2"}}, "MASTER_ADDR");
  refused({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", "70000"}}, "70000");
}

TEST(Place, FirstHostOfANodeList) {
  EXPECT_EQ(first_host("n1"), "n1");
  EXPECT_EQ(first_host("n1,n2"), "n1");
  EXPECT_EQ(first_host("n[03-05,9],m1"), "n03");
  EXPECT_EQ(first_host("n[7]"), "n7");
  EXPECT_EQ(first_host("n[4,6]"), "n4");
}

}  // namespace
}  // namespace llava
