using Fleet.Data.Writing;

namespace Fleet.Api.Changes;

public static class ChangeServices
{
    public static void AddFleetChanges(this IServiceCollection services)
    {
        services.AddSingleton<ChangeReader>();
        services.AddSingleton<ChangeStream>();
        services.AddSingleton<ChangeSignal>();
        services.AddSingleton<ICommitObserver>(provider => provider.GetRequiredService<ChangeSignal>());
        services.AddSingleton<Retention>();
        services.AddHostedService(provider => provider.GetRequiredService<Retention>());
    }
}
