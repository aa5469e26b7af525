package main

import (
	"context"
	"fmt"
	"slices"

	"heliograph/infra/clickhouse"
	"heliograph/infra/kafka"
	"heliograph/infra/postgres"
	"heliograph/schemas/topic"
	"heliograph/tools/operator"
)

// bringBack is for the embedded engines, where nobody but us decides: a log that is not the one that the views have
// read (a power cut took its end, a disk a part of it, somebody put an older copy in its place) is adopted as it is,
// and the views are made anew from it. It says what was lost. Nothing else runs yet.
func bringBack(
	ctx context.Context, p *process, cfg kafka.Config, bases *kafka.Bases, pf postgresFlags, cf clickhouseFlags,
) error {
	if err := p.migratePostgres(ctx, pf.Postgres, "views", pf.PostgresSchema); err != nil {
		return err
	}
	ccfg := cf.config(p.log, nil, "dev")
	if err := p.migrateClickHouse(ctx, ccfg); err != nil {
		return err
	}
	a, err := lookAtViews(ctx, cfg, bases, pf, ccfg, p)
	if err != nil || len(a.Faults) == 0 {
		return err
	}
	if len(a.Plan) > 0 {
		p.log.Warn("the log is not the one that the views have read: going on from what is there",
			"partitions", len(a.Plan), "lost", a.lost(), "first", a.Faults[0].Fault)
		for i := range a.Plan {
			a.Plan[i].Note = "adopted by helio dev at its start"
		}
		if err := kafka.Adopt(ctx, cfg, a.Plan); err != nil {
			return err
		}
		cl, err := kafka.Dial(cfg)
		if err != nil {
			return err
		}
		defer cl.Close()
		if err := bases.Reload(ctx, cl); err != nil {
			return err
		}
	}
	// In this order: who is killed in between finds the same views to be made anew.
	if slices.Contains(a.Rebuild, viewThreads) {
		p.log.Warn("making the thread views anew from the log")
		if err := postgres.Drop(ctx, pf.Postgres, pf.PostgresSchema); err != nil {
			return err
		}
	}
	if slices.Contains(a.Rebuild, viewHistory) {
		p.log.Warn("making the history anew from the log")
		if err := clickhouse.Drop(ctx, ccfg); err != nil {
			return err
		}
	}
	return nil
}

func lookAtViews(
	ctx context.Context, cfg kafka.Config, bases *kafka.Bases, pf postgresFlags, ccfg clickhouse.Config, p *process,
) (*adoption, error) {
	s, err := operator.OpenStores(ctx, pf.config(p.log, nil, "dev", 2), ccfg)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	a, err := planAdoption(ctx, cfg, bases, s.Views, s.History)
	if err != nil {
		return nil, fmt.Errorf("look whether the log of %s is the one that the views have read: %w", topic.Threads, err)
	}
	return a, nil
}
