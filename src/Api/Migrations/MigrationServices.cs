namespace Fleet.Api.Migrations;

public static class MigrationServices
{
    public static void AddFleetMigrations(this IServiceCollection services)
    {
        services.AddSingleton<MigrationReader>();
        services.AddSingleton<MigrationCommands>();
        services.AddSingleton<VmLifeCommands>();
        services.AddSingleton<MigrationSweep>();
        services.AddHostedService(provider => provider.GetRequiredService<MigrationSweep>());
    }
}
