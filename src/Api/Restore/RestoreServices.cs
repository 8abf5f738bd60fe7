namespace Fleet.Api.Restore;

public static class RestoreServices
{
    /// <summary>Right after the store: what it finds at the start is settled before anything is served.</summary>
    public static void AddFleetRestore(this IServiceCollection services)
    {
        services.AddSingleton<StoreRestore>();
        services.AddSingleton<Admission>();
        services.AddHostedService<RestoreAtStart>();
    }
}
