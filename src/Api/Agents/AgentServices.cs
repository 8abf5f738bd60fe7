using Fleet.Api.Agents.Push;
using Fleet.Data.Writing;

namespace Fleet.Api.Agents;

public static class AgentServices
{
    public static void AddFleetAgents(this IServiceCollection services)
    {
        services.AddSingleton<StatusBoard>();
        services.AddSingleton<DigestCache>();
        services.AddSingleton<DesiredIndex>();
        services.AddSingleton<PushHub>();
        services.AddSingleton<DesiredReader>();
        services.AddSingleton<DesiredStream>();
        services.AddSingleton<SnapshotAdmission>();
        services.AddSingleton<StreamShutdown>();
        services.AddSingleton<Enforcement>();
        services.AddSingleton<ICommitObserver, CommitFanout>();
        services.AddSingleton<Contests>();
        services.AddHostedService<StatusSweep>();
        services.AddHostedService<ExpirySweep>();
    }
}
