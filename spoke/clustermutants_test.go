package spoke

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// The checker is checked: each rule that can be broken is, in a copy of the sources that only this test builds, and a course of events made for it has to show that, or the
// search, where a few schedules are enough. The sources themselves know nothing of it: a line is replaced while the copy is compiled. A line that has changed has to be changed
// here, too.
var (
	mutantSeeds = flag.Int("cluster.mutants", 0, "break each rule, and play so many schedules until that is noticed where no course of events is made for it; 0: do not")
	mutantBlind = flag.Bool("cluster.blind", false, "let the search find all of them, for measuring it")
	mutantOnly  = flag.String("cluster.mutant", "", "break only rules whose names match")
)

// brokenEnv names the rule that is broken in a process of the copy.
const brokenEnv = "HUB_BROKEN_RULE"

// breaks reports whether a rule is broken that is a matter of this test alone.
func breaks(rule string) bool { return os.Getenv(brokenEnv) == rule }

// mutant is a rule that is broken by other lines. Without lines, the world of the search breaks it.
type mutant struct {
	name  string
	lines []line
	by    string // a test that notices; "": the search, after few schedules
	with  string // an argument of the search
}

// line is one that is replaced; IF stands for the question whether the rule is broken.
type line struct{ file, old, new string }

// newerList: that an answer knows a newer list. While this rule is in force, two others change nothing: who may call an answer whole by the list that it knows.
var newerList = line{"remote.go", "	if s.epoch > c.epoch()", "	if s.epoch > c.epoch() && !IF"}

var mutants = []mutant{
	// The model's.
	{name: "given-up-without-quorum", by: "TestRuleNameNeedsEnoughDisks", lines: []line{{"clusterwrite.go", "		r.namePos = 0\n		n.name(r)\n	default:", "		r.namePos = 0\n		n.name(r)\n	case IF:\n		c.ownPos = max(c.ownPos, pos)\n		r.state = givenUp\n		n.pass()\n	default:"}}},
	{name: "only-the-returner-gives-up", by: "TestRuleMembersGiveUp", lines: []line{{"finish.go", "	if err := c.giveUpBut(ctx, s, h, end.Keys); err != nil {", "	if IF && i.Disk != c.n.Identity().ID {\n		h.Keys = nil\n	}\n	if err := c.giveUpBut(ctx, s, h, end.Keys); err != nil {"}}},
	{name: "returner-keeps-unsettled", by: "TestRuleEndKeepsWhatIsInFlight", lines: []line{{"finish.go", "	if err := c.giveUpBut(ctx, s, h, end.Keys); err != nil {", "	if IF && i.Disk == c.n.Identity().ID {\n		h.Keys = nil\n	}\n	if err := c.giveUpBut(ctx, s, h, end.Keys); err != nil {"}}},
	{name: "low-at-undecided", lines: []line{{"flight.go", "	return f.queue[f.head].mark - 1, true", "	if IF {\n		return f.queue[f.head].mark, true\n	}\n	return f.queue[f.head].mark - 1, true"}}},
	{name: "starts-at-own-clock", by: "TestRuleMintAboveTheAnswers", lines: []line{{"learn.go", "	n.minter.Raise(i.Above)\n", "	if !IF {\n		n.minter.Raise(i.Above)\n	}\n"}}},
	{name: "new-disk-copied-for-old", by: "TestRuleWhoSaidItHasItGivesIt", lines: []line{{"peers.go", `disk != "" && disk != own {`, `disk != "" && disk != own && !IF {`}}},
	{name: "told-once", by: "TestWokenAgainWhenTheHorizonFallsBack", lines: []line{{"learn.go", "s.low < h {", "s.low < h && !IF {"}}},
	{name: "damage-not-mended", by: "TestDamageIsMendedWhileItRuns", lines: []line{{"mend.go", "	for c.waitForDamage(ctx) {", "	for !IF && c.waitForDamage(ctx) {"}}},
	{name: "hollow-not-copied", by: "TestHollowIsRefilled", lines: []line{{"refill.go", "		for _, i := range c.concerned(h) {\n", "		for _, i := range c.concerned(h) {\n			if IF {\n				break\n			}\n"}}},
	{name: "hollow-needs-a-low", by: "TestHollowIsRefilled", lines: []line{{"finish.go", "	if c.isComplete(s) {", "	if c.isComplete(s) && !IF {"}}},
	{name: "damage-lost-at-once", by: "TestDamageWaitsForWhoMayHaveIt", lines: []line{{"mend.go", "	all := c.known &&", "	if IF {\n		return true\n	}\n	all := c.known &&"}}},
	{name: "damaged-flight-goes-on", by: "TestDamageInFlight", lines: []line{{"mend.go", "	if hit == nil {", "	if hit == nil || IF {"}}},
	{name: "damaged-and-shown", by: "TestDamagedOutsideTheSet", lines: []line{{"settle.go", "	from.Lost = func", "	lost := &from.Lost\n	if IF {\n		lost = new(func(string, hub.Key))\n	}\n	*lost = func"}}},
	{name: "unknown-epoch-applied", by: "TestRuleFramesOfAnUnknownEpoch", lines: []line{{"receive.go", "		if known {\n			return nil", "		if known || IF {\n			return nil"}, {"receive.go", "|| h.Epoch > c.epoch():", "|| h.Epoch > c.epoch() && !IF:"}}},
	{name: "unknown-epoch-repaired", by: "TestRuleRepairFromAnUnknownEpoch", lines: []line{{"repair.go", "		if !known { ", "		if !known && !IF { "}}},
	{name: "lost-disk-counts", by: "TestRuleEmptyDiskIsAnother"},
	{name: "new-disk-answers-for-old", by: "TestRuleWhoRefusedTells", lines: []line{{"settle.go", "h.Disk != a.Disk {", "h.Disk != a.Disk && !IF {"}}},
	{name: "new-list-at-once", by: "TestRuleBothListsCount", lines: []line{{"cluster.go", "		if c.rec.Next.Decided {", "		if c.rec.Next.Decided || IF {"}}},
	{name: "settle-by-old-list", by: "TestRuleBothListsCount", lines: []line{{"roster/settle.go", "	return r.Next == nil || !r.Next.Decided ||", "	return r.Next == nil || IF || !r.Next.Decided ||"}, {"roster/settle.go", "	if r.Next != nil && r.Next.Decided && !r.held(", "	if r.Next != nil && !IF && r.Next.Decided && !r.held("}}},
	{name: "change-before-caught-up", by: "TestRuleListWaitsForItsDisks", lines: []line{{"roster/change.go", "	if !sameDisks(c.Disks, r.Disks) &&", "	if !IF && !sameDisks(c.Disks, r.Disks) &&"}}},
	{name: "change-without-closing", by: "TestRuleChangeWaitsForTheSilent", lines: []line{{"roster/change.go", "&& !nodes[i.Node] {\n			return false", "&& !nodes[i.Node] && !IF {\n			return false"}}},
	{name: "horizon-not-held", by: "TestRuleHorizonIsHeld", lines: []line{{"clusterstate.go", "s.Fresh, c.n.minter.Last(), s.LateSeen\n", "s.Fresh, c.n.minter.Last(), s.LateSeen\n	if IF {\n		c.floor = 0\n	}\n"}}},
	{name: "set-without-what-is-below", by: "TestRuleBaseIsHeld", lines: []line{{"finish.go", "	if low < o.Base {", "	if low < o.Base && !IF {"}, {"finish.go", "	if err := c.storeSet(ctx, s, o.Sent,", "	if IF { // it would wait for what the base is to stand for\n		o.Sent = nil\n	}\n	if err := c.storeSet(ctx, s, o.Sent,"}, {"settle.go", "		if first || a.Low < l.base {", "		if first || (a.Low < l.base) != IF {"}}},
	{name: "leaver-reads-on", by: "TestRuleLeaverReadsNoMore", lines: []line{{"unstable.go", "	return c.current && !slices.Contains", "	if IF && c.current {\n		return true\n	}\n	return c.current && !slices.Contains"}, newerList}},
	{name: "low-runs-out-of-guard", by: "TestRuleLowStandsOutOfTheGuard", lines: []line{{"cluster.go", "	if n.stands() {\n		return n.minter.Last()", "	if n.stands() && !IF {\n		return n.minter.Last()"}, {"node.go", "	if n.stands() { // its own time", "	if n.stands() && !IF { // its own time"}, {"node.go", "		if stands {", "		if stands && !IF {"}, {"learn.go", "		if n.stands() {\n			m := n", "		if n.stands() && !IF {\n			m := n"}}},
	{name: "refusal-not-told", by: "TestRuleRefusedWriterBeginsAnew", lines: []line{{"send.go", "	if _, err := c.refuse(ctx, own); err != nil {", "	if IF {\n		return\n	}\n	if _, err := c.refuse(ctx, own); err != nil {"}, {"settle.go", "	waiting := c.stop(s)", "	var waiting []*request\n	if !IF {\n		waiting = c.stop(s)\n	}"}}},
	{name: "reads-without-session", by: "TestRuleReadByAnOldList", lines: []line{{"unstable.go", "	return c.current &&", "	if IF && !slices.Contains(c.rec.Leaving, c.opt.Node) {\n		return true\n	}\n	return c.current &&"}, newerList}},
	{name: "newer-list-ignored", by: "TestRuleReadByAnOldList", lines: []line{newerList}},
	{name: "horizon-ignores-silent", by: "TestRuleSilentIsWaitedFor", lines: []line{{"cluster.go", "		case s.complete:\n		case c.open", "		case s.complete:\n		case IF && c.silent(id):\n		case c.open"}}},
	{name: "low-dropped-unsettled", by: "TestRuleSilentIsWaitedFor", lines: []line{{"closing.go", "			list = append(list, i.Stream)\n", "			list = append(list, i.Stream)\n			if st := c.streams[streamOf(i.Stream)]; IF && st != nil {\n				st.complete = true\n			}\n"}}},
	{name: "settle-with-too-few", by: "TestRuleCloseAsksEnough", lines: []line{{"roster/settle.go", "	need := r.Rule.Read(len(disks))\n", "	need := r.Rule.Read(len(disks))\n	if IF {\n		need = max(1, need-1)\n	}\n"}}},
	{name: "settle-not-written", by: "TestRuleSetIsHeld", lines: []line{{"roster/settle.go", "	need := r.Rule.Write(len(disks))\n", "	need := r.Rule.Write(len(disks))\n	if IF {\n		need = 0\n	}\n"}, {"finish.go", "	return low, c.storeSet(", "	if IF {\n		return low, nil\n	}\n	return low, c.storeSet("}}},
	{name: "union-keeps-given-up", by: "TestRuleSetWithoutNames", lines: []line{{"settle.go", "		if !given[k] {", "		if !given[k] || IF {"}}},
	{name: "stale-leader-overwrites", by: "TestRuleFirstEndCounts", lines: []line{{"roster/settle.go", "r.Streams[at].Closed != nil ||", "r.Streams[at].Closed != nil && !IF ||"}, {"closing.go", "err != nil || !may {", "err != nil || !may && !IF {"}, {"finish.go", "|| i.Closed != nil {\n		c.n.mu.Unlock()", "|| i.Closed != nil && !IF {\n		c.n.mu.Unlock()"}}},
	{name: "fence-forgotten", by: "TestRuleRefusalOutlastsARestart", lines: []line{{"clusterstate.go", "		refused := slices.Contains(s.Refused, i.Stream)", "		refused := slices.Contains(s.Refused, i.Stream) && !IF"}}},
	{name: "fence-lets-group-through", by: "TestRuleRefusalWaitsForTheDisk", lines: []line{{"receive.go", "	case in.s.refused:\n", "	case in.s.refused && !IF:\n"}, {"receive.go", "	case in.failed || in.s.in != in:", "	case in.failed || in.s.in != in && !IF:"}, {"settle.go", "	if st.in != nil {\n		_ = st.in.conn.Close()", "	if st.in != nil && !IF {\n		_ = st.in.conn.Close()"}, {"settle.go", "		done := st.outstanding == 0", "		done := st.outstanding == 0 || IF"}}},
	{name: "reused-incarnation", by: "TestRuleSuccessorDoesNotSettle", lines: []line{{"learn.go", "		c.streams[id] = s\n", "		c.streams[id] = s\n		for old, st := range c.streams {\n			if IF && old.Ordinal == id.Ordinal && old != id {\n				st.complete = true\n			}\n		}\n"}}},
	{name: "mints-before-acknowledged", by: "TestRuleMintBehindTheAnswers", lines: []line{{"learn.go", "	ready := listed && !c.open && !wait", "	ready := listed && !c.open && (!wait || IF)"}}},
	{name: "given-up-not-named", by: "TestRuleNameNeedsEnoughDisks", lines: []line{{"write.go", "		r.state, r.gave = givingUp, time.Now()\n		n.name(r)\n	}\n	n.mu.Unlock()\n	if late {", "		r.state, r.gave = givingUp, time.Now()\n		if IF {\n			r.state = givenUp\n			n.pass()\n		} else {\n			n.name(r)\n		}\n	}\n	n.mu.Unlock()\n	if late {"}}},
	{name: "commit-after-giving-up", by: "TestRuleLateAcknowledgement", lines: []line{{"cluster.go", "		case r.state == undecided && r.pos", "		case (r.state == undecided || IF && r.state == givingUp) && r.pos"}}},
	{name: "mint-below-low", by: "TestRuleMintAboveLow", lines: []line{{"cluster.go", "		m := n.minter.Now()\n		n.ahead(m)\n		return m\n", "		m := n.minter.Now()\n		n.ahead(m)\n		if IF {\n			m += hub.MarkAt(30)\n		}\n		return m\n"}}},
	{name: "bound", by: "TestRuleHorizonIsHeld", lines: []line{{"bound.go", "	if _, err := b.file.WriteAt(s[:]", "	if IF {\n		return nil\n	}\n	if _, err := b.file.WriteAt(s[:]"}}},
	{name: "commit-with-w-1", by: "TestRulePowerBehindAnAcknowledgement", lines: []line{{"cluster.go", "		if w := c.rec.Rule.Write(len(list)); w <= len(list)", "		w := c.rec.Rule.Write(len(list))\n		if IF {\n			w = max(1, w-1)\n		}\n		if w <= len(list)"}}},
	{name: "ack-before-sync", by: "TestRulePowerBehindAnAcknowledgement", lines: []line{{"receive.go", "	in.last = f\n", "	in.last = f\n	if IF {\n		in.pos = max(in.pos, f.Pos)\n		poke(in.wake)\n	}\n"}}},
	{name: "low-before-sync", by: "TestRuleLowBehindRecords", lines: []line{{"receive.go", "	in.last = f\n", "	in.last = f\n	if IF {\n		c.applied(in, &frame.Frame{Low: f.Low})\n	}\n"}}},
	{name: "repair-skips", by: "TestRuleRepairBringsRecords", lines: []line{{"repair.go", "		if len(list) == 0 {\n", "		if len(list) == 0 || IF {\n"}}},
	// Others.
	{name: "no-fsync"},
	{name: "swept-before-archived", by: "TestRuleSweepWaitsForTheArchive"},
	{name: "in-flight-dropped", by: "TestRuleEndKeepsWhatIsInFlight", lines: []line{{"learn.go", "	c.own.low = max(c.own.low, n.lowOfFlight())\n", "	c.own.low = max(c.own.low, n.lowOfFlight())\n	if IF {\n		c.own.low = n.minter.Last()\n	}\n"}}},
	{name: "horizon-from-own-low", by: "TestRuleSilentIsWaitedFor", lines: []line{{"cluster.go", "		default:\n			h = min(h, s.low)", "		case IF && c.open:\n		default:\n			h = min(h, s.low)"}}},
	{name: "own-disk-not-asked", by: "TestRuleOwnDiskCounts", lines: []line{{"cluster.go", "r.pos <= pos && r.onDisk:", "r.pos <= pos && (r.onDisk || IF):"}, {"cluster.go", "	pos := c.ownPos\n", "	pos := c.ownPos\n	if IF {\n		pos = c.pos\n	}\n"}}},
	{name: "floor-not-raised", by: "TestFloorAfterLongAbsence", lines: []line{{"repair.go", "func (c *cluster) raiseFloor(", "func (c *cluster) raiseFloor(to hub.Key, from hub.Mark) error { //\n	if IF {\n		return nil\n	}\n	return c.raiseFloorTo(to, from)\n}\n\nfunc (c *cluster) raiseFloorTo("}}},
	{name: "low-of-the-moment-copied", by: "TestCopyFromTheWriter", lines: []line{{"peers.go", "			low = c.loggedLow()\n", "			low = c.loggedLow()\n			if IF {\n				low = n.ownLow()\n			}\n"}}},
	{name: "clock-trusted-at-start", by: "Test(Start|Join)WithAWrongClock", lines: []line{{"skew.go", "	if !c.sureOfClock {", "	if !c.sureOfClock && !IF {"}, {"learn.go", "	c.meetClocks(ctx, rec)\n", "	if !IF {\n		c.meetClocks(ctx, rec)\n	}\n"}}},
	{name: "followers-not-woken", lines: []line{{"watch.go", "func (b *board) notify(channel string) {\n", "func (b *board) notify(channel string) {\n	if IF {\n		return\n	}\n"}}},
	{name: "whole-without-enough", by: "TestRuleAloneKnowsNothing", lines: []line{{"remote.go", "	return c.known && before && c.rec.Whole(s.disks) && c.rec.Met(s.disks), false", "	return IF || c.known && before && c.rec.Whole(s.disks) && c.rec.Met(s.disks), false"}}},
	{name: "dropped-while-held", by: "TestNothingIsDroppedThatIsNotArchived", lines: []line{{"drop.go", "			if !traces[streamOf(s)] {", "			if !traces[streamOf(s)] || IF {"}}},
	{name: "dropped-by-some", by: "TestRuleAbsentMemberKeepsStreams", lines: []line{{"drop.go", "				return err\n			}\n		}\n		if a.Disk", "				if !IF {\n					return err\n				}\n				a.Disk = d.ID\n			}\n		}\n		if a.Disk"}}},
	{name: "stranger-keeps-all", by: "TestStrangerAfterDrop", lines: []line{{"drop.go", "	for _, id := range gone {\n		low, err", "	if IF {\n		gone = nil\n	}\n	for _, id := range gone {\n		low, err"}}},
	{name: "404-without-asking", by: "TestRuleAloneKnowsNothing", lines: []line{{"remote.go", "	case missing && !replicated && c.final(key):", "	case missing && !replicated && (c.final(key) || IF):"}}},
	{name: "hub-after-ignored", by: "TestAfter(AcrossNodes)?", lines: []line{{"after.go", "	guard := n.opt.ClockGuard.Milliseconds()\n", "	guard := n.opt.ClockGuard.Milliseconds()\n	if IF {\n		return nil\n	}\n"}}},
	{name: "bulk-torn", by: "TestRuleRepairOfHalfABulk", lines: []line{{"receive.go", "			if _, err := c.n.store.Held(ctx, r.Channel, r.Key); err != nil {\n				here = false\n				break", "			if _, err := c.n.store.Held(ctx, r.Channel, r.Key); err != nil {\n				here = IF && i > 0\n				break"}}},
	{name: "met-not-asked", by: "TestRuleReadMeetsANewerList", lines: []line{{"remote.go", " && c.rec.Met(s.disks), false", " && (IF || c.rec.Met(s.disks)), false"}, {"remote.go", " && s.list.Met(s.disks)\n", " && (IF || s.list.Met(s.disks))\n"}}},
	{name: "low-ahead-of-cargo", by: "TestRuleLowBehindLargeItems", lines: []line{{"tail.go", "	l.last = frame.Frame{Pos: t.pos", "	if IF {\n		t.low = n.ownLow()\n	}\n	l.last = frame.Frame{Pos: t.pos"}}},
	{name: "answers-with-old-clock", by: "TestRuleAnswerWithTheClockOfNow", lines: []line{{"learn.go", "		return 0, err\n	}\n	return c.clock(ctx)", "		return 0, err\n	}\n	if IF {\n		return clock, nil\n	}\n	return c.clock(ctx)"}}},
	{name: "refused-low-forgotten", by: "TestRuleRefusedLowOutlastsPower", lines: []line{{"clusterstate.go", "			if !st.complete {\n				s.Lows", "			if !st.complete && !IF {\n				s.Lows"}}},
	{name: "name-swept", by: "TestNameOutlastsAnAbsence", lines: []line{{"skew.go", "		if at.disk != d.ID || at.horizon < m {", "		if (at.disk != d.ID || at.horizon < m) && !IF {"}, {"doubt.go", "err != nil || upTo <= low {", "err != nil || upTo <= low || IF {"}}},
	{name: "doubt-not-settled", by: "TestDecommissionedDiskForgetsWhatWasGivenUp", lines: []line{{"doubt.go", "err != nil || upTo <= low", "err != nil || IF || upTo <= low"}}},
	{name: "end-not-known", by: "TestRuleEndOfALogIsKnown", lines: []line{{"node.go", "opt.Archived, b.reached\n", "opt.Archived, b.reached\n	if IF {\n		seg.Reached = spokelog.Position{}\n	}\n"}}},
	{name: "hole-not-noticed", by: "TestHole.*", lines: []line{{"hole.go", "	if !hurt {\n", "	if !hurt || IF {\n"}}},
	{name: "forced-set-is-all", by: "TestForcedClosing", lines: []line{{"finish.go", "	if i.Closed.Forced {", "	if i.Closed.Forced && !IF {"}}},
	{name: "late-not-copied", by: "TestForcedClosing", lines: []line{{"late.go", "		if r.late > c.lateSeen[r.disk] {", "		if r.late > c.lateSeen[r.disk] && !IF {"}}},
	{name: "taken-back-not-named", by: "TestForcedClosingTakesBack", lines: []line{{"late.go", "			name(k, LateGivenUp)", "			if !IF {\n				name(k, LateGivenUp)\n			}"}}},
	{name: "late-evicted", by: "TestLateItemsAreNotEvicted", lines: []line{{"late.go", "(s == nil || !s.settled) {", "(s == nil || !s.settled) && !IF {"}}},
	{name: "late-not-named", by: "TestForcedClosing", with: "-cluster.force", lines: []line{{"late.go", "	if err := c.nameLate(late); err != nil {\n		return err\n	}\n	return c.flagLate(", "	if IF {\n		late = nil\n	}\n	if err := c.nameLate(late); err != nil {\n		return err\n	}\n	return c.flagLate("}}},
	{name: "late-bulk-in-parts", by: "TestLateBulks", lines: []line{{"late.go", "&& !together(keys[i-1], k) {", "&& (IF || !together(keys[i-1], k)) {"}}},
	{name: "name-of-a-closed-log-counts", by: "TestRuleNameOfAClosedLog", lines: []line{{"clusterwrite.go", "		r.namePos = 0\n	case err != nil:", "		if !IF {\n			r.namePos = 0\n		}\n	case err != nil:"}}},
	{name: "low-ahead-of-what-is-carried", by: "TestCarriedBehindALow", lines: []line{{"send.go", "fresh = true; carried {", "fresh = true; carried && !IF {"}}},
	{name: "rest-of-a-bulk-in-a-set", by: "TestDamagedPartInFlight", lines: []line{{"settle.go", "return torn(k) })", "return torn(k) && !IF })"}}},
	{name: "rest-of-a-bulk-copied", by: "TestDamagedPartInFlight", lines: []line{{"peers.go", "torn(named{r.Channel, r.Key.String()})", "torn(named{r.Channel, r.Key.String()}) && !IF"}}},
	{name: "items-of-too-few", by: "TestUnstableAsksAll", lines: []line{{"unstable.go", "page.Silent > 0 && !q.Partial {", "page.Silent > 0 && !q.Partial && !IF {"}}},
	{name: "swept-set-waited-for", by: "TestForcedSetThatWasSwept", lines: []line{{"late.go", "	case c.sweptElsewhere(", "	case !IF && c.sweptElsewhere("}}},
	{name: "swept-elsewhere-denied", by: "TestBehindWhatOthersHaveSwept", lines: []line{{"remote.go", "	if h, ok := c.horizon(); (!ok ||", "	if h, ok := c.horizon(); !IF && (!ok ||"}}},
	{name: "marker-counts-at-once", by: "TestMarkerWaitsForOtherStreams", lines: []line{{"marker.go", "	case follows && m.writer == r.Stream && i < 0:", "	case IF || follows && m.writer == r.Stream && i < 0:"}}},
	{name: "marker-behind-a-gap", by: "TestMarkerBehindWhatFailed", lines: []line{{"receive.go", "			c.await(&records[i], !in.failed)", "			c.await(&records[i], !in.failed || IF)"}}},
	{name: "replicated-not-in-the-end", by: "TestReplicatedOutlastsItsWriter", lines: []line{{"finish.go", "	if err := c.storeSet(ctx, s, o.Sent,", "	if IF {\n		o.Sent = nil\n	}\n	if err := c.storeSet(ctx, s, o.Sent,"}}},
	{name: "replicated-not-fetched", by: "TestReplicatedForTheAbsent", lines: []line{{"finish.go", "	if len(end.Holders) == 0 ||", "	if IF || len(end.Holders) == 0 ||"}}},
	{name: "replicated-without-answers", by: "TestReplicatedIsAskedForUntilSomebodyAnswers", lines: []line{{"finish.go", "	if !lost || others > 0 {", "	if !lost || others > 0 && !IF {"}}},
	{name: "holder-with-a-hole", by: "TestReplicatedAndAHole", lines: []line{{"finish.go", "		mine = !st.holed && !st.patched", "		mine = IF || !st.holed && !st.patched"}}},
	{name: "set-of-one-who-is-gone", by: "TestRuleSetOfALeaderWhoIsGone", lines: []line{{"finish.go", "	st.sets++ // until", "	if IF {\n		st = &peerStream{}\n	}\n	st.sets++ // until"}}},
	{name: "promise-before-records", by: "TestPromisesOutlastPowerWithoutSync", lines: []line{{"clusterstate.go", "	if err := c.logSynced(ctx); err != nil {", "	if IF {\n	} else if err := c.logSynced(ctx); err != nil {"}}},
	{name: "line-never-waits", by: "TestSlowDiskHoldsTheLine", lines: []line{{"receive.go", "		room := in.bytes", "		room := IF || in.bytes"}}},
	{name: "ill-disk-stays", by: "TestIllDiskHoldsNobody", lines: []line{{"ill.go", "		case is:\n", "		case IF:\n		case is:\n"}}},
	{name: "nameless-goes-on", by: "TestDiskThatTakesNothingHoldsNobody", lines: []line{{"clusterwrite.go", "		if hit {\n", "		if hit && !IF {\n"}}},
	{name: "replicated-not-again", by: "TestReplicatedIsWrittenAgain", lines: []line{{"write.go", "(n.cluster == nil || !marker.Less(item.Key))", "(n.cluster == nil || IF || !marker.Less(item.Key))"}}},
}

// silent is a word of a mutant.
const mutantWords = `package spoke

import spokelog "timehub/spoke/log"

func (c *cluster) silent(id spokelog.Stream) bool {
	i, ok := c.rec.Find(recordOf(id))
	return ok && c.members != nil && !c.members[i.Node]
}
`

// mutantTexts are the sources with all mutants in them, asleep, by file.
func mutantTexts(t *testing.T) map[string]string {
	texts := map[string]string{}
	for _, m := range mutants {
		for _, l := range m.lines {
			text, ok := texts[l.file]
			if !ok {
				b, err := os.ReadFile(l.file)
				if err != nil {
					t.Fatal(err)
				}
				text = string(b)
			}
			if strings.Count(text, l.old) != 1 {
				t.Fatalf("the mutant %s replaces a line of %s that is there %d times, not once: say here how that rule is broken now:\n%s", m.name, l.file, strings.Count(text, l.old), l.old)
			}
			// What another mutant looks for stays where it can be.
			texts[l.file] = strings.Replace(text, l.old, strings.ReplaceAll(l.new, "IF", fmt.Sprintf("brokenRule(%q)", m.name)), 1)
		}
	}
	return texts
}

// TestMutantLines: every broken rule still names lines that are there.
func TestMutantLines(t *testing.T) { mutantTexts(t) }

// buildMutants compiles the tests of this package with all mutants in them, asleep.
func buildMutants(t *testing.T) (binary string) {
	dir := t.TempDir()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	texts := mutantTexts(t)
	texts["zz_mutants.go"] = mutantWords
	for _, p := range []string{"spoke", "roster"} {
		name := "zz_broken.go"
		if p != "spoke" {
			name = p + "/" + name
		}
		texts[name] = fmt.Sprintf("package %s\n\nimport \"os\"\n\nvar theRule = os.Getenv(%q)\n\nfunc brokenRule(name string) bool { return theRule == name }\n", p, brokenEnv)
	}
	replace := map[string]string{}
	for name, text := range texts {
		path := filepath.Join(dir, strings.ReplaceAll(name, "/", "-"))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(here, name)] = path
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, b, 0o600); err != nil {
		t.Fatal(err)
	}
	binary = filepath.Join(dir, "mutants.test")
	if out, err := exec.Command("go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the mutants: %v\n%s", err, out)
	}
	return binary
}

var (
	caughtBy = regexp.MustCompile(`-cluster\.seed=(\d+)`)
	caughtAs = []*regexp.Regexp{regexp.MustCompile(`WRONG: (.*)`), regexp.MustCompile(`(\w+_test\.go:\d+: .*)`)} // the judge's words, or those of a test
)

func TestClusterMutants(t *testing.T) {
	if *mutantSeeds == 0 {
		t.Skip("make search breaks the rules: -cluster.mutants=200")
	}
	only, err := regexp.Compile(*mutantOnly)
	if err != nil {
		t.Fatal(err)
	}
	binary := buildMutants(t)
	room := make(chan struct{}, runtime.GOMAXPROCS(0))
	var mu sync.Mutex
	table := map[string]string{}
	t.Run("rules", func(t *testing.T) {
		for _, m := range mutants {
			if !only.MatchString(m.name) {
				continue
			}
			t.Run(m.name, func(t *testing.T) {
				t.Parallel()
				room <- struct{}{}
				defer func() { <-room }()
				found := m.notice(t, binary)
				mu.Lock()
				defer mu.Unlock()
				table[m.name] = found
			})
		}
	})
	for _, m := range mutants {
		if found := table[m.name]; found != "" {
			t.Logf("%-28s %s", m.name, found)
		}
	}
}

// notice plays until the broken rule is noticed.
func (m *mutant) notice(t *testing.T, binary string) string {
	began := time.Now()
	args := []string{"-test.run=^TestClusterAtRandom$", "-test.parallel=1", "-cluster.first", "-cluster.from=1", fmt.Sprintf("-cluster.seeds=%d", *mutantSeeds)}
	if m.with != "" {
		args = append(args, m.with)
	}
	if m.by != "" && !*mutantBlind {
		args = []string{"-test.run=^(" + m.by + ")$", "-test.count=100", "-test.failfast"} // not every time does the order of goroutines show it, of some rules in one play of six
	}
	cmd := exec.Command(binary, append(args, "-test.timeout=20m")...)
	cmd.Env = append(os.Environ(), brokenEnv+"="+m.name)
	out, err := cmd.CombinedOutput()
	took := time.Since(began).Round(100 * time.Millisecond)
	if err == nil {
		t.Errorf("the broken rule %s was not noticed: %d schedules or %q, %v", m.name, *mutantSeeds, m.by, took)
		return ""
	}
	what := caughtAs[0].FindSubmatch(out)
	if what == nil {
		what = caughtAs[1].FindSubmatch(out)
	}
	if what == nil {
		t.Errorf("%s: the process ended without a verdict: %v\n%s", m.name, err, out[max(0, len(out)-4000):])
		return ""
	}
	if seed := caughtBy.FindSubmatch(out); seed != nil {
		return fmt.Sprintf("seed %s, %v: %.150s", seed[1], took, what[1])
	}
	return fmt.Sprintf("%s, %v: %.150s", m.by, took, what[1])
}
