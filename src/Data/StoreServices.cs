using Fleet.Data.Storage;
using Fleet.Data.Writing;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.Data;

public static class StoreServices
{
    /// <summary>Adds store, writer and contexts. Hosted services start in order: register what needs the store after this.</summary>
    public static IServiceCollection AddFleetStore(this IServiceCollection services)
    {
        services.AddSingleton<StoreContexts>();
        services.AddSingleton<StoreStartup>();
        services.AddHostedService(provider => provider.GetRequiredService<StoreStartup>());
        services.AddSingleton<WriteBatch>();
        services.AddSingleton<StoreWriter>();
        services.AddHostedService(provider => provider.GetRequiredService<StoreWriter>());
        return services;
    }
}
